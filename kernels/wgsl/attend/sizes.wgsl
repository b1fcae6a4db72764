// Less than any score, and finite, so that the difference of two is 0 and not NaN.
const NEVER: f32 = -3.0e38;
