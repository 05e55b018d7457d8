//! Frames of windows as ranges of rows: what `EXCLUDE` leaves of a frame is up to three of them.

use std::ops::Range;
use tidemark_plan::Excluded;

/// A frame's rows: ranges in their order that do not overlap; some may be empty.
pub type Pieces = [Range<usize>; 3];

/// What is left of a row's frame; `peers` are the rows that are equal in order, itself among them.
pub fn pieces(frame: Range<usize>, excluded: Excluded, row: usize, peers: Range<usize>) -> Pieces {
    let nothing = || frame.end..frame.end;
    let hole = match excluded {
        Excluded::Nothing => return [frame.clone(), nothing(), nothing()],
        Excluded::CurrentRow => row..row + 1,
        Excluded::Group | Excluded::Ties => peers,
    };
    let within = |at: usize| at.clamp(frame.start, frame.end);
    let itself = match excluded {
        Excluded::Ties => within(row)..within(row + 1),
        _ => nothing(),
    };
    let (before, behind) = (within(hole.start), within(hole.end));
    [frame.start..before, itself, behind..frame.end]
}

/// Their rows.
pub fn rows(pieces: &[Range<usize>]) -> impl Iterator<Item = usize> {
    pieces.iter().cloned().flatten()
}

/// What takes some pieces to others: ranges of rows that go (-1), then those that come (1).
pub fn difference(
    from: &[Range<usize>],
    to: &[Range<usize>],
) -> impl Iterator<Item = (Range<usize>, i64)> {
    let gone = without(from, to).into_iter().map(|rows| (rows, -1));
    gone.chain(without(to, from).into_iter().map(|rows| (rows, 1)))
}

/// The rows of some pieces that others do not have.
fn without(pieces: &[Range<usize>], others: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut left = Vec::new();
    for piece in pieces {
        let mut rest = piece.clone();
        for other in others.iter().filter(|other| !other.is_empty()) {
            if other.end <= rest.start || other.start >= rest.end {
                continue;
            }
            if rest.start < other.start {
                left.push(rest.start..other.start);
            }
            rest.start = other.end.min(rest.end);
        }
        if !rest.is_empty() {
            left.push(rest);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_excluded_is_left_out_and_differences_add_up() {
        let all = [
            Excluded::Nothing,
            Excluded::CurrentRow,
            Excluded::Group,
            Excluded::Ties,
        ];
        let mut before: Vec<Range<usize>> = Vec::new();
        for (start, end) in (0..7).flat_map(|a| (a..7).map(move |b| (a, b))) {
            for (excluded, row) in all.into_iter().flat_map(|e| (2..5).map(move |r| (e, r))) {
                let frame = pieces(start..end, excluded, row, 2..5);
                let is_in = |at: &usize| match excluded {
                    Excluded::Nothing => true,
                    Excluded::CurrentRow => *at != row,
                    Excluded::Group => !(2..5).contains(at),
                    Excluded::Ties => *at == row || !(2..5).contains(at),
                };
                let expected: Vec<usize> = (start..end).filter(is_in).collect();
                assert_eq!(rows(&frame).collect::<Vec<_>>(), expected);
                let mut moved: Vec<usize> = rows(&before).collect();
                for (changed, weight) in difference(&before, &frame) {
                    match weight {
                        1 => moved.extend(changed),
                        _ => moved.retain(|at| !changed.contains(at)),
                    }
                }
                moved.sort_unstable();
                assert_eq!(moved, expected);
                before = frame.to_vec();
            }
        }
    }
}
