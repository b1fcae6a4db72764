//! Running a plugin's recipe. It is believed in nothing: sizes are checked before anything is allocated.

use super::{Pixels, resize::resize};
use tamarack_api::{Medium, RecipeOp};

/// Pixels that a step may make: more than any model takes.
const MAX_PIXELS: usize = 1 << 26;

/// A value of a recipe: an image, or frames of a video, all of one size.
enum Value {
    Bytes(Vec<Pixels>),
    /// [rows, columns, channels] of so many columns, of each.
    Floats {
        width: usize,
        height: usize,
        frames: Vec<Vec<f32>>,
    },
}

/// An image, prepared.
pub(super) struct Prepared {
    /// [patches, width]
    pub patches: Vec<f32>,
    /// What the tower sees of it, before bytes become numbers: for people.
    pub seen: Vec<Pixels>,
}

/// Runs the recipes of parts of an image, or of the frames of one moment of a video; `width` is that of the tower's
/// patches. Steps that a recipe begins with as the one before it does are not done again.
pub(super) fn run(parts: &[Medium], frames: Vec<Pixels>, width: usize) -> Result<Vec<Prepared>, String> {
    let mut values = vec![Value::Bytes(frames)];
    let mut done: &[RecipeOp] = &[];
    let mut all = Vec::with_capacity(parts.len());
    for medium in parts {
        let recipe = &medium.recipe[..];
        // What leaves something behind is done for each.
        let is_pure = |op: &RecipeOp| matches!(op, RecipeOp::Resize { .. } | RecipeOp::Crop { .. });
        let known = recipe.iter().zip(done).take_while(|(a, b)| a == b && is_pure(a)).count();
        values.truncate(1 + known);
        let mut prepared = Prepared { patches: Vec::new(), seen: Vec::new() };
        for (i, op) in recipe.iter().enumerate().skip(known) {
            let wrong = |e: String| format!("step {i} of its recipe: {e}");
            let value = step(op, &values, &mut prepared).map_err(wrong)?;
            values.push(value);
        }
        let count: usize = medium.segments.iter().sum();
        let (found, expected) = (prepared.patches.len(), count.saturating_mul(width));
        if found != expected || count == 0 {
            return Err(format!("the recipe makes {found} values, the tower takes {count} patches of {width}"));
        }
        all.push(prepared);
        done = recipe;
    }
    Ok(all)
}

fn step(op: &RecipeOp, values: &[Value], prepared: &mut Prepared) -> Result<Value, String> {
    let bytes = |of: usize| match values.get(of) {
        Some(Value::Bytes(frames)) => Ok(frames),
        _ => Err(format!("expected an image of bytes, {of} is none")),
    };
    let check = |width: usize, height: usize| match width.checked_mul(height) {
        Some(1..=MAX_PIXELS) => Ok(()),
        _ => Err(format!("an image of {width} x {height} pixels: expected 1 to {MAX_PIXELS}")),
    };
    match op {
        RecipeOp::Resize { of, width, height, filter } => {
            check(*width, *height)?;
            Ok(Value::Bytes(bytes(*of)?.iter().map(|frame| resize(frame, *width, *height, *filter)).collect()))
        }
        RecipeOp::Crop { of, x, y, width, height } => {
            check(*width, *height)?;
            let parts = bytes(*of)?.iter().map(|frame| frame.crop(*x, *y, *width, *height));
            parts.collect::<Result<_, _>>().map(Value::Bytes)
        }
        RecipeOp::Normalize { of, scale, mean, std } => {
            let frames = bytes(*of)?;
            prepared.seen.extend_from_slice(frames);
            // As in numpy: the product in f64, rounded, the rest in f32.
            let one = |(i, v): (usize, &u8)| ((f64::from(*v) * scale) as f32 - mean[i % 3]) / std[i % 3];
            let [width, height] = frames.first().map_or([0; 2], |f| [f.width, f.height]);
            let frames = frames.iter().map(|f| f.rgb.iter().enumerate().map(one).collect()).collect();
            Ok(Value::Floats { width, height, frames })
        }
        RecipeOp::Patchify { of, patch, merge, frames: depth } => {
            let Some(Value::Floats { width, height, frames }) = values.get(*of) else {
                return Err(format!("expected a normalized image, {of} is none"));
            };
            let block = patch.checked_mul(*merge).filter(|b| *b > 0);
            let block = block.filter(|b| width.is_multiple_of(*b) && height.is_multiple_of(*b));
            let block =
                block.ok_or_else(|| format!("{width} x {height} pixels are no {merge}-blocks of {patch}-patches"))?;
            let deep = frames.len().checked_next_multiple_of(*depth).filter(|n| *n > 0);
            let size = deep.and_then(|n| (width * height * 3).checked_mul(n)).filter(|n| *n <= MAX_PIXELS * 3);
            prepared.patches.reserve(size.ok_or_else(|| format!("{depth} frames in a patch are too many, or none"))?);
            for moment in frames.chunks(*depth) {
                let at = |frame: usize| &moment[frame.min(moment.len() - 1)];
                for (row, column) in (0..height / block).flat_map(|r| (0..width / block).map(move |c| (r, c))) {
                    for within in 0..merge * merge {
                        let y = row * block + within / merge * patch;
                        let x = column * block + within % merge * patch;
                        for (channel, frame) in (0..3).flat_map(|c| (0..*depth).map(move |frame| (c, frame))) {
                            for line in y..y + patch {
                                let line = at(frame)[(line * width + x) * 3..].iter().skip(channel).step_by(3);
                                prepared.patches.extend(line.take(*patch));
                            }
                        }
                    }
                }
            }
            Ok(Value::Floats { width: 0, height: 0, frames: Vec::new() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tamarack_api::Filter;

    #[test]
    fn parts_that_begin_alike_are_what_they_are_alone() {
        let rgb = (0..7 * 5 * 3).map(|i| (i * 37 % 251) as u8).collect();
        let image = Pixels { width: 7, height: 5, rgb };
        let resize = |of, width| RecipeOp::Resize { of, width, height: 4, filter: Filter::Bicubic };
        let part = |begin: &[RecipeOp]| {
            let of = begin.len();
            let rest = [
                RecipeOp::Normalize { of, scale: 1.0, mean: [1.0; 3], std: [2.0; 3] },
                RecipeOp::Patchify { of: of + 1, patch: 2, merge: 1, frames: 1 },
            ];
            Medium { recipe: [begin, &rest].concat(), segments: vec![4], ..Medium::default() }
        };
        let crop = |of, x| RecipeOp::Crop { of, x, y: 0, width: 4, height: 4 };
        let parts = [
            part(&[resize(0, 6), resize(1, 8), crop(2, 0)]),
            part(&[resize(0, 6), resize(1, 8), crop(2, 4)]),
            part(&[resize(0, 6), resize(1, 8), resize(2, 4)]),
            part(&[resize(0, 6), resize(1, 8), resize(2, 4)]),
            part(&[resize(0, 4)]),
        ];
        let together = run(&parts, vec![image.clone()], 12).unwrap();
        for (part, found) in parts.iter().zip(together) {
            let alone = run(std::slice::from_ref(part), vec![image.clone()], 12).unwrap().remove(0);
            assert_eq!((found.patches, found.seen), (alone.patches, alone.seen));
        }
        let e = run(&[part(&[resize(0, 6), crop(1, 3)])], vec![image], 12).err().unwrap();
        assert!(e.starts_with("step 1 of its recipe: 4 x 4 pixels at 3, 0 are not inside 6 x 4"), "{e}");
    }
    #[test]
    fn frames_lie_behind_each_other_in_patches() {
        let frame = |v: u8| Pixels { width: 2, height: 1, rgb: vec![v, v + 1, v + 2, v + 3, v + 4, v + 5] };
        let recipe = vec![
            RecipeOp::Normalize { of: 0, scale: 1.0, mean: [0.0; 3], std: [1.0; 3] },
            RecipeOp::Patchify { of: 1, patch: 1, merge: 1, frames: 2 },
        ];
        let moments = Medium { recipe, segments: vec![2, 2], ..Medium::default() };
        let prepared = run(std::slice::from_ref(&moments), vec![frame(0), frame(10), frame(20)], 6).unwrap().remove(0);
        let expected =
            [[0, 10, 1, 11, 2, 12], [3, 13, 4, 14, 5, 15], [20, 20, 21, 21, 22, 22], [23, 23, 24, 24, 25, 25]];
        assert_eq!(prepared.patches, expected.as_flattened().iter().map(|v| *v as f32).collect::<Vec<f32>>());
        assert_eq!(prepared.seen.len(), 3);
        let none = RecipeOp::Patchify { of: 1, patch: 1, merge: 1, frames: 0 };
        let none = Medium { recipe: vec![moments.recipe[0].clone(), none], ..moments };
        assert!(run(&[none], vec![frame(0)], 6).err().unwrap().contains("0 frames in a patch"));
    }
}
