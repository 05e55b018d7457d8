//! How far windows look ahead of a row in time, and so when `EMIT ON WINDOW CLOSE` has it complete.
//!
//! Rows are ordered by a column with a watermark, and none comes below that. So a row changes no
//! more when the watermark has passed
//! * the row itself, where nothing is read of rows behind it and its peers;
//! * the row that is as many rows, or groups of peers, ahead as are read: a call of its own tells
//!   of that one's time, which is NULL while there is no such row;
//! * the row's time and the length of a frame of values more.
//!
//! What looks at all rows behind is never known to be complete.

use arrow_schema::DataType;
use tidemark_plan::{Excluded, Frame, FrameBound, FrameUnits, SortKey, WindowCall, WindowFunction};

/// How far some calls look ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ahead {
    /// Not beyond a row's peers.
    Nothing,
    /// So many rows.
    Rows(i64),
    /// So many groups of peers.
    Groups(i64),
    /// So many microseconds.
    Micros(i64),
}

impl Ahead {
    /// Of all calls of a window together; `None` where it is not known.
    pub fn of(calls: &[WindowCall]) -> Option<Ahead> {
        let mut all = calls.iter().map(Ahead::of_call);
        all.try_fold(Ahead::Nothing, |far, call| far.and(call?))
    }

    fn of_call(call: &WindowCall) -> Option<Ahead> {
        match &call.function {
            WindowFunction::Ranking(_) => Some(Ahead::Nothing),
            WindowFunction::Shifted(by) => Some(Ahead::Rows(*by).or_nothing()),
            WindowFunction::PercentRank | WindowFunction::CumeDist | WindowFunction::Ntile(_) => {
                None
            }
            WindowFunction::NtileBy | WindowFunction::LagBy | WindowFunction::LeadBy => None,
            WindowFunction::FirstValue
            | WindowFunction::LastValue
            | WindowFunction::NthValue(_)
            | WindowFunction::NthValueBy
            | WindowFunction::Aggregate(_)
            | WindowFunction::Array => Ahead::of_frame(&call.frame),
        }
    }

    fn of_frame(frame: &Frame) -> Option<Ahead> {
        let ahead = match (frame.end, frame.units) {
            (FrameBound::Unbounded, _) => return None,
            (FrameBound::Offset(rows), FrameUnits::Rows) => Ahead::Rows(rows),
            (FrameBound::Offset(groups), _) => Ahead::Groups(groups),
            (FrameBound::Value(_), _) => Ahead::Micros(frame.ahead_micros?),
        };
        Some(ahead.or_nothing())
    }

    fn or_nothing(self) -> Ahead {
        match self {
            Ahead::Rows(n) | Ahead::Groups(n) | Ahead::Micros(n) if n <= 0 => Ahead::Nothing,
            ahead => ahead,
        }
    }

    fn and(self, other: Ahead) -> Option<Ahead> {
        use Ahead::*;
        Some(match (self, other) {
            (Nothing, far) | (far, Nothing) => far,
            (Rows(a), Rows(b)) => Rows(a.max(b)),
            // So many groups have at least as many rows.
            (Rows(a) | Groups(a), Rows(b) | Groups(b)) => Groups(a.max(b)),
            (Micros(a), Micros(b)) => Micros(a.max(b)),
            (Micros(_), _) | (_, Micros(_)) => return None,
        })
    }

    /// The call that tells of the time at which a row is complete: the first sort key's there.
    pub fn closing_call(self, time: usize, output: DataType) -> Option<WindowCall> {
        let at = |groups| Frame {
            units: FrameUnits::Groups,
            start: FrameBound::Offset(groups),
            end: FrameBound::Offset(groups),
            excluded: Excluded::Nothing,
            ahead_micros: None,
        };
        let (function, frame) = match self {
            Ahead::Nothing | Ahead::Micros(_) => return None,
            Ahead::Rows(rows) => (WindowFunction::Shifted(rows), at(0)),
            Ahead::Groups(groups) => (WindowFunction::FirstValue, at(groups)),
        };
        Some(WindowCall {
            function,
            args: vec![time],
            filter: None,
            frame,
            output,
        })
    }

    /// Whether a call is that.
    pub fn is_closed_by(self, call: &WindowCall, time: usize) -> bool {
        let own = self.closing_call(time, call.output.clone());
        own.is_some_and(|own| match own.function {
            WindowFunction::Shifted(_) => own.function == call.function && own.args == call.args,
            _ => own == *call,
        })
    }
}

/// Rows that come later stand behind those that are there.
pub(super) fn is_by_time(key: &SortKey) -> bool {
    !key.descending && !key.nulls_first
}
