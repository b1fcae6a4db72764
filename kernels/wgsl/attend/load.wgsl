    let quad = from_key + 4u * team;
    let first_slot = page_ahead * PAGE + quad % PAGE;
    page_ahead = page_of(pages, quad + 4u * TEAMS);
{{for u in FOUR}}
    key{{u}} = quad + {{u}}u;
{{end u}}
    if (quad < hi) {
{{for u in FOUR}}
        let slot{{u}} = (first_slot + min({{u}}u, hi - 1u - quad)) * SLOT_WORDS;
        {{for i in KEY_PIECES_EACH}}
        k{{u}}_{{i}} = key_piece(slot{{u}} + kv_head * KEY_WORDS, key_piece{{i}});
        {{end i}}
        {{for i in VALUE_PIECES_EACH}}
        v{{u}}_{{i}} = value_piece(slot{{u}} + VALUES_AT + kv_head * VALUE_WORDS, value_piece{{i}});
        {{end i}}
{{end u}}
    }
