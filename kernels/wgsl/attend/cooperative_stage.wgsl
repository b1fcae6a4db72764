for (var i = thread; i < BLOCK_KEYS * {{DIMS}} / 4u; i += THREADS * {{AT_A_TIME}}u) {
                {{for s in AT_A_TIME}}
                let i_{{V}}{{s}} = min(i + {{s}}u * THREADS, BLOCK_KEYS * {{DIMS}} / 4u - 1u);
                let {{V}}{{s}} = {{ROLE}}_quad(i_{{V}}{{s}}, table, at, hi, kv_head);
                {{end s}}
                {{for s in AT_A_TIME}}
                put_{{ROLE}}(i_{{V}}{{s}}, {{V}}{{s}});
                {{end s}}
            }
