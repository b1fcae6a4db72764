{
                {{for i in SUB_I}}
                {{for k in KEY_TILES}}
                var s{{i}}_{{k}}: {{COOP}}<f32, C>;
                {{end k}}
                {{end i}}
                {{for d in QUERY_TILES}}
                {
                    {{for i in SUB_I}}
                    let q_at{{i}} = ((sub_row + {{i}}u * SIDE) * QUERY_STRIDE + {{d}}u * SIDE) / WIDTH;
                    let a{{i}} = coopLoadT<{{COOP}}<f16, A>>(&queries[q_at{{i}}], {{QUERY_COOP}}u);
                    {{end i}}
                    {{for k in KEY_TILES}}
                    let k_at{{k}} = ({{k}}u * SIDE * BLOCK_STRIDE + {{d}}u * SIDE) / WIDTH;
                    let b{{k}} = coopLoad<{{COOP}}<f16, B>>(&block[k_at{{k}}], {{BLOCK_COOP}}u);
                    {{for i in SUB_I}}
                    s{{i}}_{{k}} = coopMultiplyAdd(a{{i}}, b{{k}}, s{{i}}_{{k}});
                    {{end i}}
                    {{end k}}
                }
                {{end d}}
                {{for i in SUB_I}}
                {{for k in KEY_TILES}}
                let s_at{{i}}_{{k}} = (sub_row + {{i}}u * SIDE) * SCORE_STRIDE + {{k}}u * SIDE;
                coopStoreT(s{{i}}_{{k}}, &scores[s_at{{i}}_{{k}}], {{SCORE_STRIDE}}u);
                {{end k}}
                {{end i}}
            }
