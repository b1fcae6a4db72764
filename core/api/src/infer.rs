//! The shape of each result, from the shapes of what it takes. Plugin and host run the same function.

use crate::{Dim, Graph, Op, Sym, WeightExpr, WeightId, custom, dim::same_count, moe};

/// A message about shapes; the caller adds op and place.
type Inferred<T> = Result<T, String>;

/// The shape of `op`'s result. `Kv` has the pseudo-shape [tokens, groups, dk, dv], which only
/// `Attention` takes.
pub(crate) fn infer(g: &Graph, op: &Op, inputs: &[&[Dim]]) -> Inferred<Vec<Dim>> {
    match (op, inputs) {
        (Op::Tokens {}, []) => Ok(vec![Sym::Tokens.into()]),
        (Op::Embedding { weight }, [ids]) => match (g.weight_shape(*weight), ids) {
            (&[_, dim], [rows]) => Ok(vec![*rows, dim.into()]),
            (w, ids) => Err(format!("wants ids [rows] and a table [n, dim], found {ids:?} and {w:?}")),
        },
        (Op::Linear { weight, bias }, [x]) => linear(g, *weight, *bias, x),
        (Op::RmsNorm { weight, .. }, [x]) => norm(g, *weight, None, x),
        (Op::LayerNorm { weight, bias, .. }, [x]) => norm(g, *weight, *bias, x),
        (Op::Activation { .. } | Op::Clamp { .. } | Op::MulScalar { .. } | Op::AddScalar { .. } | Op::Sqrt {}, [x]) => {
            Ok(x.to_vec())
        }
        (Op::MulWeight { weight }, [x]) => match (g.weight_shape(*weight), last(x)?) {
            (&[dim], d) if dim == d => Ok(x.to_vec()),
            (w, d) => Err(format!("wants a weight [{d}] for {x:?}, found {w:?}")),
        },
        (Op::Mean {}, [x]) => last(x).map(|_| with_last(x, 1)),
        (Op::Matmul {}, [a, b]) => matmul(a, b),
        (Op::Xielu { .. }, [x]) => {
            let shape = op.weights().map(|w| g.weight_shape(w)).find(|s| s.iter().any(|n| *n != 1));
            shape.map_or(Ok(x.to_vec()), |s| Err(format!("wants parameters of one element, found {s:?}")))
        }
        (Op::Add {} | Op::Sub {} | Op::Mul {} | Op::Div {}, [a, b]) => broadcast(a, b),
        (Op::Reshape { shape }, [x]) if same_count(shape, x) => Ok(shape.clone()),
        (Op::Reshape { shape }, [x]) => Err(format!("{x:?} does not hold as many elements as {shape:?}")),
        (Op::Slice { dim, start, len }, [x]) => slice(x, *dim, *start, *len),
        (Op::Concat {}, [first, rest @ ..]) => concat(first, rest),
        (Op::Rope { rope }, [x]) => {
            let width = g.ropes.get(*rope as usize).map_or(usize::MAX, |r| r.width());
            match x {
                [_, _, dim] if dim.constant().is_some_and(|d| width <= d) => Ok(x.to_vec()),
                _ => Err(format!("wants [rows, heads, dim] with dim at least {width}, found {x:?}")),
            }
        }
        (Op::Kv { .. }, [[t, groups, dk], [u, values, dv]])
            if t == u && groups == values && *t == Sym::Tokens.into() =>
        {
            Ok(vec![*t, *groups, *dk, *dv])
        }
        (Op::Kv { .. }, [k, v]) => {
            Err(format!("wants keys [tokens, groups, dk] and values [tokens, groups, dv], found {k:?} and {v:?}"))
        }
        (Op::Attention { spec }, [q, kv]) => attention(g, spec.sinks, q, kv),
        (Op::MoeRoute { weight, bias, spec }, [x]) => moe::route_shape(g, *weight, *bias, spec, x),
        (Op::MoeExperts { gate_up, down, gate_up_bias, down_bias, spec }, [x, route]) => {
            moe::experts_shape(g, [*gate_up, *down], [*gate_up_bias, *down_bias], spec, [x, route])
        }
        (Op::LatentAttention { key, value, spec }, [q_nope, q_rope, latent, k_rope]) => {
            let weights = (g.weight_shape(*key), g.weight_shape(*value));
            latent_attention(g, spec.sinks, weights, [q_nope, q_rope, latent, k_rope])
        }
        (Op::CausalConv1d { weight, bias }, [x]) => match (g.weight_shape(*weight), bias.map(|b| g.weight_shape(b)), x)
        {
            (&[channels, kernel], b, [rows, dim])
                if *dim == channels.into()
                    && *rows == Sym::Tokens.into()
                    && kernel > 0
                    && b.is_none_or(|b| b == [channels]) =>
            {
                Ok(x.to_vec())
            }
            (w, b, _) => Err(format!(
                "wants [tokens, channels], a weight [channels, kernel] and a bias [channels], found {x:?}, {w:?} and {b:?}"
            )),
        },
        (Op::Outputs {}, [x]) => match x {
            [rows, rest @ ..] if *rows == Sym::Tokens.into() => Ok([&[Sym::Outputs.into()], rest].concat()),
            _ => Err(format!("wants rows of tokens, found {x:?}")),
        },
        (Op::Patches { width }, []) if *width > 0 => Ok(vec![Sym::Patches.into(), (*width).into()]),
        (Op::PatchIds {}, []) => Ok(vec![Sym::Patches.into()]),
        (Op::PatchInput { width, .. }, []) if *width > 0 => Ok(vec![Sym::Patches.into(), (*width).into()]),
        (Op::MergeEmbeddings {} | Op::AddEmbeddings { .. }, [x]) => match x {
            [rows, _] if *rows == Sym::Tokens.into() => Ok(x.to_vec()),
            _ => Err(format!("wants [tokens, dim], found {x:?}")),
        },
        (Op::SegmentAttention { .. }, [q, k, v]) => segment_attention(q, k, v),
        (Op::Custom { custom, weights, decomposed }, inputs) if !inputs.is_empty() => {
            custom::infer(g, *custom, weights, *decomposed, inputs)
        }
        (_, inputs) => Err(format!("does not take {} inputs", inputs.len())),
    }
}

fn last(x: &[Dim]) -> Inferred<usize> {
    match x {
        [_, .., d] => d.constant().ok_or(format!("the last dimension of {x:?} is not constant")),
        _ => Err(format!("wants [rows, .., dim], found {x:?}")),
    }
}

fn with_last(x: &[Dim], n: usize) -> Vec<Dim> {
    let mut shape = x.to_vec();
    if let Some(d) = shape.last_mut() {
        *d = n.into();
    }
    shape
}

fn linear(g: &Graph, weight: WeightId, bias: Option<WeightId>, x: &[Dim]) -> Inferred<Vec<Dim>> {
    let (w, b) = (g.weight_shape(weight), bias.map(|b| g.weight_shape(b)));
    match *w {
        [n, k] if last(x)? == k && b.is_none_or(|b| b == [n]) => Ok(with_last(x, n)),
        [n, k] if last(x)? == k => Err(format!("weight {w:?} wants a bias [{n}], found {b:?}")),
        [_, k] => Err(format!("weight {w:?} wants [.., {k}], found {x:?}")),
        _ => Err(format!("wants a weight [n, k], found {w:?}")),
    }
}

fn norm(g: &Graph, weight: Option<WeightId>, bias: Option<WeightId>, x: &[Dim]) -> Inferred<Vec<Dim>> {
    let dim = last(x)?;
    let heads = x.len().checked_sub(2).filter(|i| *i > 0).and_then(|i| x[i].constant());
    let fits = |w: &[usize]| w == [dim] || heads.is_some_and(|h| w == [h, dim]);
    for w in [weight, bias].into_iter().flatten().map(|w| g.weight_shape(w)) {
        if !fits(w) {
            return Err(format!("weight {w:?} does not fit {x:?}"));
        }
    }
    Ok(x.to_vec())
}

fn broadcast(a: &[Dim], b: &[Dim]) -> Inferred<Vec<Dim>> {
    let one = Dim::from(1);
    let pick = |(a, b): (&Dim, &Dim)| match () {
        _ if a == b || *b == one => Some(*a),
        _ if *a == one => Some(*b),
        _ => None,
    };
    let shape = (a.len() == b.len()).then(|| a.iter().zip(b).map(pick).collect::<Option<Vec<Dim>>>()).flatten();
    shape.ok_or(format!("shapes differ: {a:?} and {b:?}"))
}

fn slice(x: &[Dim], dim: usize, start: usize, len: usize) -> Inferred<Vec<Dim>> {
    let size = x.get(dim).and_then(|d| d.constant());
    match (size, start.checked_add(len)) {
        (Some(size), Some(end)) if dim > 0 && len > 0 && end <= size => {
            let mut shape = x.to_vec();
            shape[dim] = len.into();
            Ok(shape)
        }
        _ => Err(format!("{start}..{} of dimension {dim} is not inside {x:?}", start.saturating_add(len))),
    }
}

fn concat(first: &[Dim], rest: &[&[Dim]]) -> Inferred<Vec<Dim>> {
    let mut width = last(first)?;
    for x in rest {
        if x.len() != first.len() || x[..x.len() - 1] != first[..first.len() - 1] {
            return Err(format!("{first:?} and {x:?} differ before the last dimension"));
        }
        width = width.saturating_add(last(x)?);
    }
    Ok(with_last(first, width))
}

fn attention(g: &Graph, sinks: Option<WeightId>, q: &[Dim], kv: &[Dim]) -> Inferred<Vec<Dim>> {
    let ([rows, heads, d], [tokens, groups, dk, dv]) = (q, kv) else {
        return Err(format!("wants queries [tokens, heads, dk] and a cache, found {q:?} and {kv:?}"));
    };
    let divides = heads.constant().zip(groups.constant()).is_some_and(|(h, g)| g > 0 && h % g == 0);
    if rows != tokens || d != dk || !divides {
        return Err(format!("queries {q:?} do not fit keys [{tokens:?}, {groups:?}, {dk:?}]: groups divide heads"));
    }
    if let Some(s) = sinks.map(|s| g.weight_shape(s))
        && Some(s) != heads.constant().as_ref().map(std::slice::from_ref)
    {
        return Err(format!("sinks {s:?} do not fit {heads:?} heads"));
    }
    Ok(vec![*rows, *heads, *dv])
}

fn segment_attention(q: &[Dim], k: &[Dim], v: &[Dim]) -> Inferred<Vec<Dim>> {
    match (q, k, v) {
        ([rows, heads, d], [rows_k, groups, dk], [rows_v, groups_v, dv])
            if [rows, rows_k, rows_v].iter().all(|r| **r == Sym::Patches.into())
                && (d, groups) == (dk, groups_v)
                && heads.constant().zip(groups.constant()).is_some_and(|(h, g)| g > 0 && h % g == 0) =>
        {
            Ok(vec![*rows, *heads, *dv])
        }
        _ => Err(format!(
            "wants [patches, heads, dk], [patches, groups, dk] and [patches, groups, dv], found {q:?}, {k:?} and {v:?}"
        )),
    }
}

fn matmul(a: &[Dim], b: &[Dim]) -> Inferred<Vec<Dim>> {
    match (a, b) {
        ([rows, m, k], [rows_b, k_b, n]) if rows == rows_b && k == k_b => Ok(vec![*rows, *m, *n]),
        _ => Err(format!("wants [rows, m, k] and [rows, k, n], found {a:?} and {b:?}")),
    }
}

fn latent_attention(
    g: &Graph,
    sinks: Option<WeightId>,
    (key, value): (&[usize], &[usize]),
    inputs: [&[Dim]; 4],
) -> Inferred<Vec<Dim>> {
    let wrong = || {
        Err(format!(
            "wants queries [tokens, heads, nope] and [tokens, heads, rope], latents [tokens, rank], keys [tokens, rope] \
             and weights [heads, nope, rank] and [heads, v, rank], found {inputs:?}, {key:?} and {value:?}"
        ))
    };
    let (&[heads, nope, rank], &[value_heads, v, value_rank]) = (key, value) else { return wrong() };
    let ([_, _, rope], tokens) = (inputs[1], Dim::from(Sym::Tokens)) else { return wrong() };
    let wanted: [&[Dim]; 4] = [
        &[tokens, heads.into(), nope.into()],
        &[tokens, heads.into(), *rope],
        &[tokens, rank.into()],
        &[tokens, *rope],
    ];
    if inputs != wanted || (heads, rank) != (value_heads, value_rank) {
        return wrong();
    }
    match sinks.map(|s| g.weight_shape(s)) {
        Some(s) if s != [heads] => Err(format!("sinks {s:?} do not fit {heads} heads")),
        _ => Ok(vec![tokens, heads.into(), v.into()]),
    }
}

/// The shape that a weight expression must have; `None` where it is free (a checkpoint's tensor) or,
/// for slices and reshapes, if `claimed` is a possible one.
pub(crate) fn weight_shape_fits(g: &Graph, expr: &WeightExpr, claimed: &[usize]) -> bool {
    let shape = |w: &WeightId| g.weight_shape(*w);
    let count = |s: &[usize]| s.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match expr {
        WeightExpr::Tensor(_) => true,
        WeightExpr::Slice { of, dim, start } => {
            let of = shape(of);
            let inside = |i: usize| {
                if i == *dim { start.checked_add(claimed[i]).is_some_and(|e| e <= of[i]) } else { claimed[i] == of[i] }
            };
            claimed.len() == of.len() && *dim < of.len() && (0..of.len()).all(inside)
        }
        WeightExpr::Stack(parts) => {
            claimed.first() == Some(&parts.len()) && parts.iter().all(|p| *shape(p) == claimed[1..])
        }
        WeightExpr::Concat(parts) => {
            let fits = |p: &WeightId| shape(p).len() == claimed.len() && shape(p)[1..] == claimed[1..];
            let rows = parts.iter().try_fold(0usize, |n, p| n.checked_add(*shape(p).first()?));
            !parts.is_empty() && rows == claimed.first().copied() && parts.iter().all(fits)
        }
        WeightExpr::Reshape(of) => count(shape(of)) == count(claimed) && shape(of).last() == claimed.last(),
        WeightExpr::Transpose(of) => {
            let (of, n) = (shape(of), claimed.len());
            n >= 2
                && of.len() == n
                && of[..n - 2] == claimed[..n - 2]
                && of[n - 2..] == [claimed[n - 1], claimed[n - 2]]
        }
        WeightExpr::AddScalar(of, _) | WeightExpr::MulScalar(of, _) => shape(of) == claimed,
        WeightExpr::Rearrange { of, dims, axes } => {
            let mut sorted = axes.clone();
            sorted.sort_unstable();
            let [rows, rest @ ..] = shape(of) else { return false };
            sorted.iter().copied().eq(0..dims.len())
                && count(dims).is_some_and(|n| Some(n) == count(rest) && claimed == [*rows, n])
        }
    }
}
