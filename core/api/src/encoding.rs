//! A graph as it crosses the boundary. What comes is believed in nothing: see [`Graph::check`].
//!
//! A weight that is a tensor of the checkpoint may be sent as a number, since api 1.4: that of the tensor in the index that
//! came with the request, which has its name and its shape. Tens of thousands of names need not come back so. Plugins do it
//! for hosts whose request says that they know of it.

use crate::{API, CustomOp, Error, Graph, Index, Node, NodeId, Result, RopeSpec, WeightExpr, WeightNode};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{borrow::Cow, fmt};

/// The version since which tensors are sent as numbers.
pub(crate) const NUMBERS: (u32, u32) = (1, 4);

/// The version since which unused tensors are sent, likewise as numbers.
pub(crate) const UNUSED: (u32, u32) = (1, 5);

/// A [`Graph`], to be written and as it was read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    api: (u32, u32),
    nodes: Cow<'a, [Node]>,
    weights: Vec<Sent<'a>>,
    ropes: Cow<'a, [RopeSpec]>,
    #[serde(default, skip_serializing_if = "<[CustomOp]>::is_empty")]
    custom: Cow<'a, [CustomOp]>,
    places: Cow<'a, [String]>,
    output: NodeId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unused: Vec<u32>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Sent<'a> {
    Number(u32),
    Weight(Cow<'a, WeightNode>),
}

/// By hand: serde would keep a copy of each, and lose what does not fit in it.
impl<'de> Deserialize<'de> for Sent<'_> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Sent<'static>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a weight or the number of a tensor")
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Self::Value, E> {
                u32::try_from(n).map(Sent::Number).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                WeightNode::deserialize(MapAccessDeserializer::new(map)).map(|w| Sent::Weight(Cow::Owned(w)))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Graph {
    /// The graph as it crosses the boundary.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.encode_with(&[], &[])
    }

    /// The same, where weights that have a number among these are sent as that, with the numbers of tensors that are unused.
    pub(crate) fn encode_with(&self, numbers: &[Option<u32>], unused: &[u32]) -> Result<Vec<u8>> {
        let Graph { api, nodes, weights, ropes, custom, places, output, unused: _ } = self;
        let numbers = numbers.iter().copied().chain(std::iter::repeat(None));
        let sent =
            |(weight, number): (_, Option<u32>)| number.map_or(Sent::Weight(Cow::Borrowed(weight)), Sent::Number);
        let message = Message {
            api: *api,
            nodes: nodes.into(),
            weights: weights.iter().zip(numbers).map(sent).collect(),
            ropes: ropes.into(),
            custom: custom.into(),
            places: places.into(),
            output: *output,
            unused: unused.to_vec(),
        };
        serde_json::to_vec(&message).map_err(|e| Error(format!("the graph cannot be encoded: {e}")))
    }

    /// Reads and checks what a plugin sent.
    ///
    /// # Errors
    /// What does not fit, and where the author wrote it if that is known.
    pub fn decode(bytes: &[u8]) -> Result<Graph> {
        Graph::decode_for(bytes, Index::new())
    }

    /// The same as the reply to a request with these tensors.
    ///
    /// # Errors
    /// Likewise.
    pub fn decode_for(bytes: &[u8], index: Index) -> Result<Graph> {
        let Message { api, nodes, weights, ropes, custom, places, output, unused } =
            serde_json::from_slice(bytes).or_else(|_| decode_or_explain(bytes))?;
        let (weights, unused) = named(weights, &unused, index)?;
        let (nodes, ropes) = (nodes.into_owned(), ropes.into_owned());
        let (custom, places) = (custom.into_owned(), places.into_owned());
        let mut graph = Graph { api, nodes, weights, ropes, custom, places, output, unused };
        graph.check()?;
        Ok(graph)
    }
}

/// Numbers become what they stand for; each may come once, like its name.
fn named(weights: Vec<Sent<'_>>, unused: &[u32], index: Index) -> Result<(Vec<WeightNode>, Index)> {
    let mut tensors: Vec<Option<(String, Vec<usize>)>> = index.into_iter().map(Some).collect();
    let all = tensors.len();
    let mut take = |n: u32, what: &dyn Fn() -> String| {
        let tensor = tensors.get_mut(n as usize).and_then(Option::take);
        tensor.ok_or_else(|| {
            Error(format!("{}: takes tensor {n} of {all}, which is not there or was taken before", what()))
        })
    };
    let weight = |(i, sent)| match sent {
        Sent::Weight(weight) => Ok(Cow::into_owned(weight)),
        Sent::Number(n) => {
            let (name, shape) = take(n, &|| format!("weight {i}"))?;
            Ok(WeightNode { expr: WeightExpr::Tensor(name), shape })
        }
    };
    let weights = weights.into_iter().enumerate().map(weight).collect::<Result<_>>()?;
    Ok((weights, unused.iter().map(|n| take(*n, &|| "unused".to_owned())).collect::<Result<_>>()?))
}

/// The same on a slower way that knows where in the graph something does not fit.
fn decode_or_explain(bytes: &[u8]) -> Result<Message<'static>> {
    let json: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|e| Error(format!("the graph is not JSON: {e}")))?;
    let api: (u32, u32) = serde_json::from_value(json["api"].clone()).unwrap_or(API);
    serde_path_to_error::deserialize(json).map_err(|e| too_new(api, &e.to_string()))
}

fn too_new((major, minor): (u32, u32), message: &str) -> Error {
    let host = format!("{}.{}", API.0, API.1);
    let named = |kind: &str| message.split(kind).nth(1).and_then(|m| m.split('`').next());
    let unknown = |what, name| {
        Error(format!("needs {what} `{name}` (api {major}.{minor}), this host has api {host}: update the host"))
    };
    match (named("unknown variant `"), named("unknown field `")) {
        (Some(op), _) if (major, minor) > API => unknown("op", op),
        (_, Some(field)) if (major, minor) > API => unknown("field", field),
        _ => Error(format!("the graph (api {major}.{minor}) does not fit api {host}: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        let weight = |expr, shape: &[usize]| WeightNode { expr, shape: shape.into() };
        let tensor = |name: &str| WeightExpr::Tensor(name.to_owned());
        Graph {
            api: API,
            nodes: vec![
                Node { op: crate::Op::Tokens {}, inputs: vec![], at: 0, shape: vec![] },
                Node { op: crate::Op::Embedding { weight: 2 }, inputs: vec![0], at: 0, shape: vec![] },
            ],
            weights: vec![
                weight(tensor("b"), &[2, 3]),
                weight(tensor("a"), &[4, 3]),
                weight(WeightExpr::Concat(vec![0, 1]), &[6, 3]),
            ],
            places: vec!["x.rs:1".to_owned()],
            output: 1,
            ..Graph::default()
        }
    }

    #[test]
    fn tensors_come_back_by_number() {
        let (mut graph, index) = (graph(), Index::from([("a".into(), vec![4, 3]), ("b".into(), vec![2, 3])]));
        let bytes = graph.encode_with(&[Some(1), Some(0)], &[]).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(r#""weights":[1,0,{"expr":{"concat":[0,1]},"shape":[6,3]}]"#), "{text}");
        graph.check().unwrap();
        assert_eq!(Graph::decode_for(&bytes, index.clone()).unwrap(), graph);
        assert_eq!(Graph::decode(&graph.encode().unwrap()).unwrap(), graph);
        for (numbers, expected) in [
            ("[1,1,", "weight 1: takes tensor 1 of 2, which is not there or was taken before"),
            ("[1,2,", "weight 1: takes tensor 2 of 2, which is not there or was taken before"),
            ("[0,1,", ""), // the other way round, which means something else but fits
            ("[1,-1,", "weights[1]: invalid type: integer `-1`, expected a weight or the number of a tensor"),
            ("[1,4294967296,", "weights[1]: out of range"),
            ("[1,\"a\",", "weights[1]: invalid type: string"),
        ] {
            let found = Graph::decode_for(text.replace("[1,0,", numbers).as_bytes(), index.clone());
            let e = found.map_or_else(|e| e.0, |_| String::new());
            assert!(e.contains(expected) && e.is_empty() == expected.is_empty(), "{numbers}: {e}");
        }
        let with = |c: &[usize]| Index::from_iter(index.clone().into_iter().chain([("c".into(), c.to_vec())]));
        let bytes_of = |unused: &[u32]| self::graph().encode_with(&[Some(1), Some(0)], unused).unwrap();
        assert_eq!(
            Graph::decode_for(&bytes_of(&[2]), with(&[7])).unwrap().unused,
            Index::from([("c".into(), vec![7])])
        );
        for wrong in [[0], [3]] {
            let e = Graph::decode_for(&bytes_of(&wrong), with(&[7])).unwrap_err().0;
            let expected = format!("unused: takes tensor {} of 3, which is not there or was taken before", wrong[0]);
            assert_eq!(e, expected);
        }
        // Without the request there are no tensors.
        assert!(Graph::decode(&bytes).unwrap_err().0.contains("takes tensor 1 of 0"));
    }
}
