// {{BITS}} bits in one plane, so that words follow the columns. A unit is {{VEC}} words.
alias Words = {{WORDS}};

fn words(row: u32, unit: u32) -> Words {
    return quants[row * UNITS + unit];
}

fn {{CODES}}(q: Words, j: u32) -> u32 {
    // A byte of each word holds one element of {{WORD_RUNS}} runs.
    return ({{WORD}} >> ({{BITS}}u * (j % {{WORD_RUNS}}u))) & {{MASK}}u;
}
