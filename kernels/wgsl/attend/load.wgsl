    let quad = from_key + 4u * team;
    let first_slot = page_ahead * PAGE + quad % PAGE;
    page_ahead = page_of(pages, quad + 4u * TEAMS);
{{for u in FOUR}}
    key{{u}} = quad + {{u}}u;
{{end u}}
    if (quad < hi) {
{{for u in FOUR}}
        let slot{{u}} = first_slot + min({{u}}u, hi - 1u - quad);
        let key_at{{u}} = key_at(slot{{u}}, kv_head);
        let value_at{{u}} = value_at(slot{{u}}, kv_head);
        {{for i in KEY_PIECES_EACH}}
        k{{u}}_{{i}} = key_piece(key_at{{u}}, key_piece{{i}});
        {{end i}}
        {{for i in VALUE_PIECES_EACH}}
        v{{u}}_{{i}} = value_piece(value_at{{u}}, value_piece{{i}});
        {{end i}}
{{end u}}
    }
