//! Layouts and reads against a dense oracle: random shapes, cut by meshes, flat ranges and free
//! cuts, and every element looked at.

use super::*;
use std::collections::BTreeSet;

/// xorshift64*: the cases are the same everywhere, from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn shape(&mut self) -> Vec<u64> {
        (0..self.below(5)).map(|_| self.pick(&[1, 2, 3, 4, 5, 7, 8])).collect()
    }

    fn mesh(&mut self, axes: usize) -> Layout {
        let mesh: Vec<(u32, Placement)> = (0..self.below(4))
            .map(|_| {
                let shard = axes > 0 && self.below(5) > 0;
                let axis = self.below(axes.max(1) as u64) as u8;
                let placement = if shard { Placement::Shard(axis) } else { Placement::Replicate };
                (1 + self.below(4) as u32, placement)
            })
            .collect();
        Layout::mesh(&mesh).unwrap()
    }

    fn range(&mut self, end: u64) -> Range<u64> {
        let (a, b) = (self.below(end + 1), self.below(end + 1));
        a.min(b)..a.max(b)
    }

    /// A box with elements, of a shape with elements.
    fn boxed(&mut self, shape: &[u64]) -> TensorBox {
        let offsets: Vec<u64> = shape.iter().map(|&len| self.below(len)).collect();
        let lens: Vec<u64> = shape.iter().zip(&offsets).map(|(len, at)| 1 + self.below(len - at)).collect();
        TensorBox::new(offsets, lens).unwrap()
    }

    fn pieces(&mut self, shape: &[u64]) -> Vec<TensorBox> {
        match self.below(3) {
            0 => self.mesh(shape.len()).pieces(shape).into_iter().map(|piece| piece.tensor_box).collect(),
            1 => {
                let total = boxes::product(shape);
                let mut cuts: Vec<u64> = (0..self.below(6)).map(|_| self.below(total + 1)).collect();
                cuts.extend([0, total]);
                cuts.sort_unstable();
                cuts.windows(2).flat_map(|cut| flat_boxes(shape, cut[0]..cut[1])).collect()
            }
            _ => self.free_cuts(shape),
        }
    }

    fn free_cuts(&mut self, shape: &[u64]) -> Vec<TensorBox> {
        let mut boxes = vec![TensorBox::whole(shape)];
        for _ in 0..self.below(7) {
            let which = self.below(boxes.len() as u64) as usize;
            let Some(axis) = (shape.len() as u64).checked_sub(1).map(|last| self.below(last + 1) as usize)
            else {
                break;
            };
            let (mut low, range) = (boxes[which].clone(), boxes[which].range(axis));
            let cut = range.start + self.below(range.end - range.start);
            let with = |range: Range<u64>| {
                let (mut offsets, mut lens) = (low.offsets().to_vec(), low.lens().to_vec());
                (offsets[axis], lens[axis]) = (range.start, range.end - range.start);
                TensorBox::new(offsets, lens).unwrap()
            };
            let (before, behind) = (with(range.start..cut), with(cut..range.end));
            if !before.is_empty() {
                low = before;
                boxes[which] = low;
                boxes.push(behind);
            }
        }
        boxes
    }
}

use std::ops::Range;

/// The numbers of a box's elements in its tensor, in the order of the box.
fn dense(shape: &[u64], tensor_box: &TensorBox) -> Vec<u64> {
    let mut numbers = vec![0];
    for (axis, &len) in shape.iter().enumerate() {
        numbers = numbers.iter().flat_map(|at| tensor_box.range(axis).map(move |i| at * len + i)).collect();
    }
    numbers
}

fn cases() -> u64 {
    std::env::var("TENSORKEEP_LAYOUT_CASES").map_or(2000, |cases| cases.parse().unwrap())
}

#[test]
fn any_box_is_read_from_any_pieces_as_from_a_dense_array() {
    let mut random = Random(1);
    let (mut read_exactly, mut several) = (0, 0);
    for _ in 0..cases() {
        let shape = random.shape();
        let pieces = random.pieces(&shape);
        let wanted = random.boxed(&shape);
        let joining =
            random.pick(&[Joining::EXACT, Joining { gap: 1, most: u64::MAX }, Joining { gap: 3, most: 5 }]);
        let mut out = vec![None; wanted.elements() as usize];
        for piece in &pieces {
            let data = dense(&shape, piece);
            let mut last = 0;
            for read in reads(piece, &wanted, joining) {
                assert!(read.source.start >= last, "in order, and nothing twice");
                last = read.source.end;
                assert!(read.runs.len() == 1 || read.source.end - read.source.start <= joining.most);
                for Run { source, target, len } in read.runs {
                    assert!(read.source.start <= source && source + len <= read.source.end);
                    for i in 0..len {
                        let place = &mut out[(target + i) as usize];
                        assert_eq!(place.replace(data[(source + i) as usize]), None, "filled twice");
                    }
                }
                read_exactly +=
                    if joining == Joining::EXACT { read.source.end - read.source.start } else { 0 };
                several += 1;
            }
        }
        read_exactly -= if joining == Joining::EXACT { wanted.elements() } else { 0 };
        let out: Vec<u64> = out.into_iter().map(|at| at.expect("an element is missing")).collect();
        assert_eq!(out, dense(&shape, &wanted), "{shape:?} {pieces:?} {wanted}");
    }
    assert_eq!(read_exactly, 0, "without gaps, only what is wanted is read");
    assert!(several > cases());
}

#[test]
fn boxes_tile_a_shape_or_the_place_is_told() {
    let mut random = Random(2);
    let (mut overlaps, mut holes) = (0, 0);
    for _ in 0..cases() {
        let shape = random.shape();
        let pieces = random.pieces(&shape);
        assert_eq!(tiling(&shape, &pieces), Ok(()), "{shape:?} {pieces:?}");
        // Something is put in its place, or beside it, or taken away.
        let mut wrong = pieces.clone();
        let which = random.below(pieces.len() as u64) as usize;
        match random.below(3) {
            0 => wrong.push(random.boxed(&shape)),
            1 => drop(wrong.swap_remove(which)),
            _ => wrong[which] = random.boxed(&shape),
        }
        let mut counts = vec![0; boxes::product(&shape) as usize];
        for at in wrong.iter().flat_map(|tensor_box| dense(&shape, tensor_box)) {
            counts[at as usize] += 1;
        }
        match tiling(&shape, &wrong) {
            Ok(()) => assert!(counts.iter().all(|&count| count == 1), "{shape:?} {wrong:?}"),
            Err(Fault::Overlap(a, b)) => {
                overlaps += 1;
                assert!(a < b && wrong[a].intersection(&wrong[b]).is_some());
            }
            Err(Fault::Hole(hole)) => {
                holes += 1;
                assert!(!hole.is_empty() && dense(&shape, &hole).iter().all(|&at| counts[at as usize] == 0));
            }
            Err(fault) => panic!("{fault:?}"),
        }
    }
    assert!(overlaps > cases() / 4 && holes > cases() / 4, "{overlaps} {holes}");
}

#[test]
fn a_shape_is_tiled_by_the_boxes_of_any_layout() {
    let mut random = Random(3);
    for _ in 0..cases() {
        let shape = random.shape();
        let layout = random.mesh(shape.len());
        let world = layout.positions().count();
        let mut seen = BTreeSet::new();
        let pieces = layout.pieces(&shape);
        assert_eq!(layout.piece_count(&shape), pieces.len() as u64);
        for piece in &pieces {
            assert!(seen.insert(piece.tensor_box.clone()), "a piece stands twice");
            let holders: Vec<u32> =
                (0..world).filter(|&at| layout.box_at(&shape, at) == piece.tensor_box).collect();
            assert_eq!(holders.first(), Some(&piece.position));
            let copies: Vec<u32> =
                (0..layout.copies()).map(|copy| layout.holder(piece.position, copy)).collect();
            assert_eq!(copies, holders, "{layout:?} {shape:?}");
        }
        let held: BTreeSet<TensorBox> = (0..world)
            .map(|at| layout.box_at(&shape, at))
            .filter(|tensor_box| !tensor_box.is_empty())
            .collect();
        assert_eq!(seen, held);
        assert_eq!(tiling(&shape, &held.into_iter().collect::<Vec<_>>()), Ok(()));
        let wanted = random.boxed(&shape);
        let meets = |piece: &Piece| piece.tensor_box.intersection(&wanted).is_some();
        let met: Vec<Piece> = pieces.into_iter().filter(meets).collect();
        assert_eq!(layout.pieces_within(&shape, &wanted), met);
    }
}

#[test]
fn a_flat_range_is_few_boxes_in_its_order() {
    let mut random = Random(4);
    for _ in 0..cases() {
        let shape = random.shape();
        let range = random.range(boxes::product(&shape));
        let boxes = flat_boxes(&shape, range.clone());
        let numbers: Vec<u64> = boxes.iter().flat_map(|tensor_box| dense(&shape, tensor_box)).collect();
        assert_eq!(numbers, range.collect::<Vec<_>>());
        assert!(boxes.len() <= (2 * shape.len()).saturating_sub(1).max(1), "{shape:?} {boxes:?}");
    }
    assert_eq!(flat_boxes(&[3, 0], 0..5), []);
    assert_eq!(flat_boxes(&[], 0..1), [TensorBox::whole(&[])]);
}

#[test]
fn boxes_that_are_no_grid_tile_too_and_faults_are_told_apart() {
    let of = |offsets: [u64; 2], lens: [u64; 2]| TensorBox::new(offsets, lens).unwrap();
    let pinwheel =
        [of([0, 0], [1, 2]), of([0, 2], [2, 1]), of([1, 0], [2, 1]), of([1, 1], [1, 1]), of([2, 1], [1, 2])];
    assert_eq!(tiling(&[3, 3], &pinwheel), Ok(()));
    assert_eq!(tiling(&[3, 3], &pinwheel[..4]), Err(Fault::Hole(of([2, 1], [1, 2]))));
    assert_eq!(tiling(&[3, 2], &pinwheel), Err(Fault::Outside(1)));
    assert_eq!(tiling(&[3], &pinwheel), Err(Fault::Outside(0)));
    assert_eq!(tiling(&[2, 2], &[of([0, 0], [2, 2]), of([1, 1], [1, 0])]), Err(Fault::Empty(1)));
    assert_eq!(tiling(&[2, 2], &[of([0, 0], [2, 2]), of([1, 1], [1, 1])]), Err(Fault::Overlap(0, 1)));
    // As many elements as there should be, in the wrong places.
    assert_eq!(tiling(&[2, 2], &[of([0, 0], [2, 1]), of([0, 0], [1, 2])]), Err(Fault::Overlap(0, 1)));
    assert_eq!(tiling(&[2, 0], &[]), Ok(()));
    assert_eq!(tiling(&[], &[TensorBox::whole(&[])]), Ok(()));
    assert!(tiling(&[], &[]).is_err());
    let corner = TensorBox::new([0; 9], [1; 9]).unwrap();
    assert_eq!(tiling(&[2; 9], &[corner]), Err(Fault::CutAxes(9)));
    // Many boxes are decided, only the place is not looked for.
    let row = |i: u64| of([i, 0], [1, 2]);
    let mut rows: Vec<TensorBox> = (0..50_000).map(row).collect();
    assert_eq!(tiling(&[50_000, 2], &rows), Ok(()));
    rows[77] = row(78);
    assert_eq!(tiling(&[50_000, 2], &rows), Err(Fault::Somewhere));
}

#[test]
fn layouts_that_are_no_digits_are_refused() {
    let level = |axis, parts, stride| Level { axis, parts, stride };
    let layout = |count, levels: &[Level]| Layout::new(Positions::first(count)?, levels.to_vec());
    // World 16 = 2 pipeline × 2 data × 4 tensor, tensor fastest.
    for levels in [
        &[][..],
        &[level(0, 16, 1)],
        &[level(0, 4, 1), level(0, 2, 4)],
        &[level(1, 4, 1), level(0, 2, 4)],
        &[level(0, 2, 4), level(1, 4, 1)],
        &[level(0, 2, 8), level(0, 2, 2)],
    ] {
        layout(16, levels).unwrap();
    }
    for (count, levels) in [
        (16, &[level(0, 1, 1)][..]),
        (16, &[level(0, 2, 0)]),
        (16, &[level(0, 32, 1)]),
        (16, &[level(0, 4, 1), level(1, 2, 2)]),
        (16, &[level(0, 4, 1), level(1, 4, 1)]),
        (16, &[level(0, 3, 1)]),
        (6, &[level(0, 2, 1), level(0, 3, 1)]),
        (16, &[level(0, u32::MAX, u32::MAX)]),
        (16, &[level(0, 2, 1 << 31)]),
        (0, &[]),
        (positions::RANKS + 1, &[]),
    ] {
        assert!(layout(count, levels).is_err(), "{count} {levels:?}");
    }
    assert!(Layout::mesh(&[(0, Placement::Replicate)]).is_err());
    assert!(Layout::mesh(&[(u32::MAX, Placement::Replicate); 3]).is_err());
    assert!(Positions::members(&[1, 2, 1]).is_err() && Positions::members(&[]).is_err());
    assert!(Positions::progression(2, u32::MAX, u32::MAX).is_err());
    assert!(Positions::progression(2, 0, 0).is_err());
}

#[test]
fn ranks_have_positions_and_positions_ranks() {
    for positions in [
        Positions::first(4).unwrap(),
        Positions::progression(4, 3, 5).unwrap(),
        Positions::members(&[7, 0, 3, 1]).unwrap(),
    ] {
        for at in 0..4 {
            assert_eq!(positions.of(positions.rank(at)), Some(at));
        }
        assert_eq!((0..100).filter(|&rank| positions.of(rank).is_some()).count(), 4);
    }
    let tensor_parallel = Layout::sharded(0, 4).unwrap();
    let permuted = tensor_parallel.on(Positions::members(&[7, 0, 3, 1]).unwrap()).unwrap();
    assert_eq!(permuted.box_of(&[8], 3).unwrap().offsets(), [4]);
    assert_eq!(permuted.box_of(&[8], 2), None);
}

/// Names and shapes of a LLaMA of 8 B parameters.
fn llama() -> Vec<(String, Vec<u64>)> {
    let (width, ffn, vocab) = (4096, 14336, 128_256);
    let mut tensors: Vec<(String, Vec<u64>)> = vec![
        ("embed".into(), vec![vocab, width]),
        ("head".into(), vec![vocab, width]),
        ("norm".into(), vec![width]),
    ];
    for layer in 0..32 {
        for (name, shape) in [
            ("q", vec![width, width]),
            ("k", vec![width / 4, width]),
            ("v", vec![width / 4, width]),
            ("o", vec![width, width]),
            ("up", vec![ffn, width]),
            ("gate", vec![ffn, width]),
            ("down", vec![width, ffn]),
            ("n1", vec![width]),
            ("n2", vec![width]),
        ] {
            tensors.push((format!("l{layer}.{name}"), shape));
        }
    }
    tensors
}

/// Bytes on the most loaded rank, over the mean of all.
fn imbalance(tensors: &[(String, Vec<u64>)], layout: &Layout, cut: bool) -> (f64, Vec<Assigned>) {
    let held: Vec<Held<'_>> =
        tensors.iter().map(|(name, shape)| Held { name, shape, element_bytes: 4, layout }).collect();
    let assigned = assign(&held, cut).unwrap();
    let mut loads = vec![0_u64; layout.positions().count() as usize];
    for (held, Assigned { layout, copy }) in held.iter().zip(&assigned) {
        for piece in layout.pieces(held.shape) {
            let rank = layout.positions().rank(layout.holder(piece.position, *copy));
            let own = held.layout.box_of(held.shape, rank).unwrap();
            assert_eq!(
                own.intersection(&piece.tensor_box).as_ref(),
                Some(&piece.tensor_box),
                "not held there"
            );
            loads[rank as usize] += piece.tensor_box.elements() * 4;
        }
    }
    let total: u64 = loads.iter().sum();
    assert_eq!(total, held.iter().map(Held::byte_len).sum::<u64>(), "each byte is stored once");
    let most = loads.iter().max().copied().unwrap_or_default();
    (most as f64 * loads.len() as f64 / total as f64, assigned)
}

#[test]
fn replicas_are_stored_once_and_evenly_by_every_ranks_sum() {
    let tensors = llama();
    for world in [2, 8, 64, 512] {
        let replicated = Layout::replicated(world).unwrap();
        let (found, assigned) = imbalance(&tensors, &replicated, true);
        assert!(found <= 1.1, "{world} ranks: {found}");
        // Whatever the order in which a rank lists them, it computes the same.
        let mut reversed = tensors.clone();
        reversed.reverse();
        let (again, mut backwards) = imbalance(&reversed, &replicated, true);
        backwards.reverse();
        assert_eq!((again, backwards), (found, assigned));
    }
    // Replicas of shards: 8 nodes of 8.
    let hybrid = Layout::mesh(&[(8, Placement::Replicate), (8, Placement::Shard(0))]).unwrap();
    let (found, _) = imbalance(&tensors, &hybrid, true);
    assert!(found <= 1.1, "{found}");
    // Whole tensors do not balance.
    assert!(imbalance(&tensors, &Layout::replicated(64).unwrap(), false).0 > 4.0);
}

#[test]
fn another_number_of_ranks_reads_only_what_it_needs() {
    let tensors = llama();
    let figures = |saved: u32, loaded: u32| {
        let (from, to) = (Layout::sharded(0, saved).unwrap(), Layout::sharded(0, loaded).unwrap());
        let (mut count, mut read, mut wanted) = (0, 0, 0);
        for (_, shape) in &tensors {
            for rank in 0..loaded {
                let part = to.box_of(shape, rank).unwrap();
                wanted += part.elements();
                for piece in from.pieces_within(shape, &part) {
                    for range in reads(&piece.tensor_box, &part, Joining::EXACT) {
                        count += 1;
                        read += range.source.end - range.source.start;
                    }
                }
            }
        }
        assert_eq!(read, wanted);
        count
    };
    assert_eq!([figures(8, 3), figures(3, 8), figures(8, 5), figures(8, 8)], [2910, 2910, 3492, 2328]);
    // Rows to columns: runs of 7 KiB, which are one range a rank over gaps of 56 KiB.
    let shape = [4096, 14_336];
    let part = Layout::sharded(1, 8).unwrap().box_of(&shape, 3).unwrap();
    let rows = Layout::sharded(0, 8).unwrap().pieces_within(&shape, &part);
    let ranges =
        |joining| rows.iter().map(|piece| reads(&piece.tensor_box, &part, joining).count()).sum::<usize>();
    assert_eq!(ranges(Joining::EXACT), 4096);
    assert_eq!(ranges(Joining { gap: 16_384, most: u64::MAX }), 8);
}
