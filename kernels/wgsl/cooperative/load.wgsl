{{for s in STAGES_X}}
        x{{s}} = halves[from_x{{s}} + at * (DEPTH / 4u)];
{{end s}}
{{for s in STAGES_W}}
        {
            // What is past the last column meets zeros of x.
            let unit = min(at * STEP_UNITS + unit_w{{s}}, UNITS - 1u);
            w{{s}} = words(from_w{{s}}, unit);
{{for affine in AFFINE}}
            scale{{s}} = scale(from_w{{s}}, unit);
{{end affine}}
        }
{{end s}}
