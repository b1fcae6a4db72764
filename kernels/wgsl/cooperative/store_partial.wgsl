                let to = (group.z * tokens + token) * MATRICES * OUTPUTS + output;
{{for g in MATRICES}}
                out[to + {{g}}u * OUTPUTS] = sum{{g}};
{{end g}}
