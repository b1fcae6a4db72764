//! The tensors of a checkpoint, by name.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
};

/// The names and shapes of a checkpoint's tensors.
pub type Index = BTreeMap<String, Vec<usize>>;

/// An index as a recorder uses it: a tensor is a number, its place in the index. Models have up to tens of thousands of
/// tensors, so that names and shapes share a buffer each.
#[derive(Default)]
pub(crate) struct Names {
    text: String,
    dims: Vec<usize>,
    /// Where the name and the shape of each tensor end.
    ends: Vec<(usize, usize)>,
    numbers: Numbers,
}

impl Names {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn name(&self, number: usize) -> &str {
        &self.text[self.start(number).0..self.ends[number].0]
    }

    pub fn shape(&self, number: usize) -> &[usize] {
        &self.dims[self.start(number).1..self.ends[number].1]
    }

    pub fn find(&self, name: &str) -> Option<usize> {
        self.numbers.find(hash(name), |n| self.name(n as usize) == name).ok().map(|n| n as usize)
    }

    fn start(&self, number: usize) -> (usize, usize) {
        number.checked_sub(1).map_or((0, 0), |before| self.ends[before])
    }

    /// Ends a tensor whose name and shape were appended.
    fn end(&mut self) {
        let number = self.ends.len();
        self.ends.push((self.text.len(), self.dims.len()));
        if let Err(free) = self.numbers.find(hash(self.name(number)), |n| self.name(n as usize) == self.name(number)) {
            self.numbers.insert(free, number as u32);
        }
    }
}

impl From<Index> for Names {
    fn from(index: Index) -> Names {
        let mut names = Names::default();
        for (name, shape) in index {
            names.text.push_str(&name);
            names.dims.extend(shape);
            names.end();
        }
        names
    }
}

/// Straight into the buffers.
impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Names;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names and shapes of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names = Names::default();
                while map.next_key_seed(Append(&mut names.text))?.is_some() {
                    map.next_value_seed(Append(&mut names.dims))?;
                    names.end();
                }
                Ok(names)
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

/// Appends what comes to a buffer.
struct Append<'a, T>(&'a mut T);

impl<'de> DeserializeSeed<'de> for Append<'_, String> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Append<'_, String> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E>(self, name: &str) -> Result<(), E> {
        self.0.push_str(name);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Append<'_, Vec<usize>> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Append<'_, Vec<usize>> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a shape")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(size) = seq.next_element()? {
            self.0.push(size);
        }
        Ok(())
    }
}

/// The numbers of things that are kept elsewhere, by what they hash to: a set without copies of its elements.
#[derive(Default)]
pub(crate) struct Numbers(HashMap<u64, u32, BuildHasherDefault<Hashed>>);

/// The hash of what is a hash.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are u64");
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Numbers {
    /// The number of the thing with this hash that `is` it, or the key under which it can be inserted.
    pub fn find(&self, hash: u64, is: impl Fn(u32) -> bool) -> Result<u32, u64> {
        let mut key = hash;
        while let Some(number) = self.0.get(&key) {
            if is(*number) {
                return Ok(*number);
            }
            key = key.wrapping_add(1);
        }
        Err(key)
    }

    pub fn insert(&mut self, key: u64, number: u32) {
        self.0.insert(key, number);
    }
}

pub(crate) fn hash(thing: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    thing.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_however_they_came() {
        let index = Index::from([("a".into(), vec![2, 3]), ("a.b".into(), vec![]), ("c\n".into(), vec![4])]);
        let json = serde_json::to_string(&index).unwrap();
        for names in [Names::from(index), serde_json::from_str(&json).unwrap()] {
            assert_eq!(names.len(), 3);
            let found = ["a", "a.b", "c\n", "", "c"].map(|name| names.find(name));
            assert_eq!(found, [Some(0), Some(1), Some(2), None, None]);
            assert_eq!((names.name(2), names.shape(0), names.shape(1)), ("c\n", &[2, 3][..], &[][..]));
        }
        for wrong in ["[]", "7", r#"{"a":7}"#, r#"{"a":["x"]}"#, r#"{"a":[-1]}"#, r#"{"a":[1]"#] {
            assert!(serde_json::from_str::<Names>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn equal_hashes_are_told_apart() {
        let (things, mut numbers) = (["x", "y", "z"], Numbers::default());
        for (i, thing) in things.iter().enumerate() {
            let free = numbers.find(u64::MAX, |n| things[n as usize] == *thing).unwrap_err();
            numbers.insert(free, i as u32);
        }
        assert_eq!(things.map(|t| numbers.find(u64::MAX, |n| things[n as usize] == t)), [Ok(0), Ok(1), Ok(2)]);
    }
}
