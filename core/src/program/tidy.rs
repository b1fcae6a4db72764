//! Order: each node after those that it takes, nodes that compute the same merged, unused ones gone.

use super::{Node, NodeId, Program};
use std::collections::HashMap;

/// Puts a program in order.
pub(super) fn tidy(program: &mut Program) {
    let old = std::mem::take(&mut program.nodes);
    let mut moved: Vec<Option<NodeId>> = vec![None; old.len()];
    let mut same: HashMap<String, NodeId> = HashMap::new();
    // Depth first without recursion: a deep model must not exhaust the stack.
    let mut open = vec![program.output];
    while let Some(&id) = open.last() {
        let waiting: Vec<NodeId> = old[id].inputs.iter().copied().filter(|i| moved[*i].is_none()).collect();
        if moved[id].is_some() || waiting.is_empty() {
            open.pop();
            if moved[id].is_none() {
                let inputs = old[id].inputs.iter().filter_map(|i| moved[*i]).collect();
                let node = Node { inputs, ..old[id].clone() };
                // Ops that write a cache name it, so they are never the same as another.
                let key = format!("{:?} {:?} {:?}", node.op, node.inputs, node.shape);
                moved[id] = Some(*same.entry(key).or_insert_with(|| {
                    program.nodes.push(node);
                    program.nodes.len() - 1
                }));
            }
        } else {
            open.extend(waiting.into_iter().rev());
        }
    }
    program.output = moved[program.output].unwrap_or(0);
}
