//! What one rank holds, by its snapshot: as a message to the others, and as the sources of what it
//! is to store.

use crate::error::{Error, ErrorKind, Result};
use crate::format::shard::Part;
use crate::layout::{Layout, Level, Positions, TensorBox};
use crate::snapshot::{AnotherWorld, Holding, Replica, Snapshot, TensorSource, check_shape};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// What a rank declares: the same bytes on ranks that hold the same by the same layouts.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::store::ranks) struct Plan {
    pub tensors: Vec<Declared>,
    pub aliases: BTreeMap<String, String>,
    pub per_rank: BTreeMap<String, AnotherWorld>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store::ranks) struct Declared {
    pub name: String,
    pub dtype: u16,
    pub shape: Vec<u64>,
    pub held: Held,
}

#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store::ranks) enum Held {
    Replica(Replica),
    Layout(LayoutMessage),
    Boxes(Vec<(Vec<u64>, Vec<u64>)>),
}

/// A layout, not checked yet.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::store::ranks) struct LayoutMessage {
    count: u32,
    progression: Option<(u32, u32)>,
    members: Vec<u32>,
    levels: Vec<(u8, u32, u32)>,
}

impl LayoutMessage {
    fn of(layout: &Layout) -> Self {
        let positions = layout.positions();
        let progression = positions.as_progression();
        let members = if progression.is_none() { positions.ranks().collect() } else { vec![] };
        let levels = layout.levels().iter().map(|level| (level.axis, level.parts, level.stride)).collect();
        Self { count: positions.count(), progression, members, levels }
    }

    /// # Errors
    /// `Invalid`.
    pub(super) fn layout(&self) -> Result<Layout> {
        let positions = match self.progression {
            Some((first, step)) => Positions::progression(self.count, first, step)?,
            None => Positions::members(&self.members)?,
        };
        let level = |&(axis, parts, stride): &(u8, u32, u32)| Level { axis, parts, stride };
        Layout::new(positions, self.levels.iter().map(level).collect())
    }
}

/// Where the bytes of a rank's boxes are.
pub(in crate::store::ranks) struct Sources<'s, 'a> {
    /// By tensor: each box that is held, and its bytes.
    held: HashMap<String, Vec<(TensorBox, &'s TensorSource<'a>)>>,
}

/// What a rank's snapshot declares, and the sources behind it.
///
/// # Errors
/// `Invalid` for a tensor of another shape than its layout gives this rank.
pub(in crate::store::ranks) fn declare<'s, 'a>(
    snapshot: &'s Snapshot<'a>,
    rank: u32,
    world: u32,
) -> Result<(Plan, Sources<'s, 'a>)> {
    let (mut plan, mut sources) = (Plan::default(), Sources { held: HashMap::new() });
    let sorted = snapshot.sorted();
    let mut boxes: BTreeMap<String, Declared> = BTreeMap::new();
    for ((name, source), first) in sorted.iter().zip(snapshot.firsts(&sorted)) {
        let (existing, _) = sorted[first];
        if existing != *name {
            plan.aliases.insert((*name).to_owned(), existing.to_owned());
            continue;
        }
        let (tensor, shape, tensor_box, held) =
            hold(snapshot, (name, source), rank, world).map_err(|error| error.in_tensor(name))?;
        sources.held.entry(tensor.clone()).or_default().push((tensor_box, source));
        let declared = Declared { name: tensor.clone(), dtype: source.dtype().id(), shape, held };
        match declared.held {
            Held::Boxes(more) => match boxes.get_mut(&tensor) {
                Some(Declared { held: Held::Boxes(there), shape, dtype, .. })
                    if *shape == declared.shape && *dtype == declared.dtype =>
                {
                    there.extend(more);
                }
                Some(there) => {
                    return Err(Error::invalid("boxes of one tensor that are of different ones")
                        .expected(format!("{:?}", there.shape))
                        .found(format!("{:?}", declared.shape))
                        .in_tensor(tensor));
                }
                None => drop(boxes.insert(tensor, Declared { held: Held::Boxes(more), ..declared })),
            },
            held => plan.tensors.push(Declared { held, ..declared }),
        }
    }
    plan.tensors.extend(boxes.into_values());
    plan.aliases.extend(snapshot.aliases.iter().map(|(name, existing)| (name.clone(), existing.clone())));
    plan.per_rank = snapshot.rules();
    Ok((plan, sources))
}

type Holds = (String, Vec<u64>, TensorBox, Held);

/// The tensor that a source is a box of, its shape, the box, and how it is declared.
fn hold(
    snapshot: &Snapshot<'_>,
    (name, source): (&str, &TensorSource<'_>),
    rank: u32,
    world: u32,
) -> Result<Holds> {
    Ok(match snapshot.holding(name) {
        Holding::Replica(rule) => {
            if let Replica::OfRank(of) = rule
                && of >= world
            {
                return Err(Error::invalid("the rank whose replica is saved")
                    .expected(format!("below {world}"))
                    .found(of));
            }
            let shape: Vec<u64> = source.shape().iter().map(|&len| len as u64).collect();
            let whole = TensorBox::whole(&shape);
            (name.to_owned(), shape, whole, Held::Replica(rule))
        }
        Holding::Sharded { shape, layout } => {
            let Some(tensor_box) = layout.box_of(&shape, rank) else {
                return Err(Error::invalid("a tensor by a layout that has no place for this rank")
                    .found(format!("rank {rank}")));
            };
            check_shape(source, &tensor_box)?;
            (name.to_owned(), shape, tensor_box, Held::Layout(LayoutMessage::of(&layout)))
        }
        Holding::Part { tensor, shape, tensor_box } => {
            let held = (tensor_box.offsets().to_vec(), tensor_box.lens().to_vec());
            let held = Held::Boxes(if tensor_box.is_empty() { vec![] } else { vec![held] });
            (tensor, shape, tensor_box, held)
        }
    })
}

impl<'a> Sources<'_, 'a> {
    /// The bytes of a box that this rank stores: a box that it holds, or rows of one.
    ///
    /// # Errors
    /// `Mismatch` when it holds no such box.
    pub(in crate::store::ranks) fn of(&self, part: &Part) -> Result<TensorSource<'a>> {
        let wanted = &part.tensor_box;
        let held = self.held.get(&part.name).map_or(&[][..], Vec::as_slice);
        let has =
            |(held, _): &&(TensorBox, &TensorSource<'a>)| held.intersection(wanted).as_ref() == Some(wanted);
        let Some((held, source)) = held.iter().find(has) else {
            return Err(Error::new(ErrorKind::Mismatch, "this rank does not hold what it is to store")
                .expected(wanted)
                .in_tensor(&part.name));
        };
        if held == wanted {
            return Ok((*source).clone());
        }
        let rows = held.lens().first().copied().unwrap_or(1).max(1);
        // OK to cast: within a tensor in memory.
        let row = source.byte_len() / rows as usize;
        let from = (wanted.offsets()[0] - held.offsets()[0]) as usize * row;
        let lens: Vec<usize> = wanted.lens().iter().map(|&len| len as usize).collect();
        source.stretch(from, &lens).map_err(|error| error.in_tensor(&part.name))
    }

    /// The bytes of a box that is compared; None for a box that this rank has not, or an empty one.
    pub(in crate::store::ranks) fn held(
        &self,
        tensor: &str,
        tensor_box: Option<&TensorBox>,
    ) -> Option<&TensorSource<'a>> {
        let held = self.held.get(tensor)?;
        held.iter()
            .find(|(held, _)| tensor_box.is_none_or(|wanted| wanted == held))
            .map(|(_, source)| *source)
    }
}
