//! What goes wrong between a broker and those who ask it.

use std::time::Duration;

/// Least and most time that something takes.
pub type Range = (Duration, Duration);

/// What may go wrong: nothing by default. Chances are so many in a thousand requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerTrouble {
    /// How long a request takes, there and back.
    pub latency: Range,
    /// How long after the end of a transaction was answered its marker stands in a partition.
    pub marker_delay: Range,
    /// A request fails before it has an effect.
    pub refused: u64,
    /// A request has its effect, and its answer is lost.
    pub unacknowledged: u64,
    /// A producer gives up on a request within a transaction, which is on its way all the same.
    pub late: u64,
    /// How long it is.
    pub late_by: Range,
    /// No request reaches the broker, and no answer leaves it.
    pub away: bool,
    /// A sink ends its transaction before it has sent all that it could (after an epoch, or a piece
    /// of a large one), as one does that has sent much.
    pub cut: u64,
}
