//! What the nodes of a crew say to each other arrives as it was, and in order.

use super::batches::{BatchReader, BatchWriter};
use super::exchange::{Incoming, arrive, deliver};
use super::frames::{
    JobReport, Limits, Order, Report, decode_order, encode_command, encode_limits,
};
use super::{Muster, Numbers};
use crate::crew::{Mate, frames};
use arrow::array::{Int64Array, RecordBatch};
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tidemark_changelog::ChangeBatch;
use tidemark_common::config::Compression;
use tidemark_common::mailbox::{Empty, mailbox};
use tidemark_common::network::{Link, LinkReceiver, LinkSender};
use tidemark_common::{Epoch, Error, RelationId, Result, machine};
use tidemark_control::protocol::{Command, Event};
use tidemark_operator::Barrier;
use tidemark_worker::{Credit, Delivery, Inbound, Message, Outbound};
use tokio::sync::{mpsc, oneshot, watch};

struct To(mpsc::Sender<Bytes>);
struct From(mpsc::Receiver<Bytes>);

#[async_trait]
impl LinkSender for To {
    async fn send(&mut self, frame: Bytes) -> Result<()> {
        self.0
            .send(frame)
            .await
            .map_err(|_| Error::internal("broken"))
    }
}

#[async_trait]
impl LinkReceiver for From {
    async fn receive(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.recv().await)
    }
}

/// The two ends of a link.
fn link() -> (Link, Link) {
    let ((here, from_there), (there, from_here)) = (mpsc::channel(16), mpsc::channel(16));
    let end = |to, from| Link {
        sender: Box::new(To(to)),
        receiver: Box::new(From(from)),
        peer: "beside".into(),
    };
    (end(there, from_there), end(here, from_here))
}

fn changes(values: Vec<i64>) -> ChangeBatch {
    let weights = values.iter().map(|v| if *v < 0 { -1 } else { 2 }).collect();
    let column = Arc::new(Int64Array::from(values));
    let rows = RecordBatch::try_from_iter([("v", column as _)]).unwrap();
    ChangeBatch::new(rows, weights)
}

fn delivery(message: Message) -> Delivery {
    Delivery {
        job: RelationId(7),
        fragment: 1,
        leaf: 2,
        channel: 3,
        message,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exchanged_waits_for_commands_and_its_credit_for_whoever_processes_it() {
    let (here, there) = link();
    let (inbox, received) = mailbox();
    let (sender, receiver) = (Arc::<Numbers>::default(), Arc::<Numbers>::default());
    let incoming = Incoming {
        generation: 1,
        first: 4,
        inboxes: vec![inbox],
        numbers: receiver.clone(),
        ended: watch::Sender::new(false),
    };
    let (way, outbound) = mpsc::unbounded_channel();
    sender.take(5);
    machine::spawn(async move { drop(deliver(here, outbound, sender, Compression::Lz4).await) });
    machine::spawn(async move { drop(arrive(there, 1, &incoming).await) });
    let (told, mut processed) = oneshot::channel();
    let credit = Credit::of_other_node(move || {
        let _ = told.send(());
    });
    let sent = changes(vec![1, -2, 3]);
    let barrier = Barrier {
        epoch: Epoch(9),
        clock: -3,
        checkpoint: true,
        horizon_ms: -1,
        watermarks: Arc::new([(RelationId(3), -7)].into()),
    };
    for message in [
        Message::Changes(sent.clone(), Some(credit)),
        Message::Changes(sent.clone(), None),
        Message::Barrier(barrier),
    ] {
        way.send(Outbound::Delivery(4, delivery(message)))
            .ok()
            .unwrap();
    }
    way.send(Outbound::Fence(4, RelationId(8))).ok().unwrap();
    receiver.gave(4);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        matches!(received.try_recv(), Err(Empty::Yet)),
        "a command is missing"
    );
    receiver.gave(5);
    let next = || {
        let until = machine::now() + Duration::from_secs(10);
        tokio::task::block_in_place(|| received.recv_until(Some(until))).unwrap()
    };
    let mut credits = Vec::new();
    for has_credit in [true, false] {
        let Inbound::Delivery(arrived) = next() else {
            panic!("changes were sent");
        };
        assert_eq!((arrived.job, arrived.fragment), (RelationId(7), 1));
        assert_eq!((arrived.leaf, arrived.channel), (2, 3));
        let Message::Changes(arrived, credit) = arrived.message else {
            panic!("changes were sent");
        };
        assert_eq!(arrived.rows(), sent.rows());
        assert_eq!(arrived.weight_column(), sent.weight_column());
        assert_eq!(credit.is_some(), has_credit);
        credits.extend(credit);
    }
    let Inbound::Delivery(arrived) = next() else {
        panic!("a barrier was sent");
    };
    assert!(
        matches!(arrived.message, Message::Barrier(b) if b.epoch == Epoch(9) && b.clock == -3
        && b.checkpoint && b.horizon_ms == -1 && b.watermarks[&RelationId(3)] == -7)
    );
    assert!(matches!(next(), Inbound::Fence(RelationId(8))));
    assert!(processed.try_recv().is_err(), "it is not processed yet");
    drop(credits);
    processed
        .await
        .expect("its sender is told that it is processed");
}

#[test]
fn orders_arrive_as_they_were() {
    let whole = encode_command(3, Some(5), Some(&Command::Settle)).unwrap();
    assert!(matches!(
        decode_order(&whole).unwrap(),
        Some(Order::Command {
            number: 3,
            to: Some(5),
            command: Some(Command::Settle)
        })
    ));
    let number = encode_command(4, None, None).unwrap();
    assert!(matches!(
        decode_order(&number).unwrap(),
        Some(Order::Command {
            number: 4,
            to: None,
            command: None
        })
    ));
    let limits = Limits {
        stalled: true,
        full: vec![(RelationId(1), "out".into())],
    };
    let sent = encode_limits(&limits).unwrap();
    assert!(matches!(decode_order(&sent).unwrap(), Some(Order::Limits(l)) if l == limits));
    assert!(matches!(
        decode_order(&frames::encode_forget(6)).unwrap(),
        Some(Order::Forget(6))
    ));
    assert!(matches!(
        decode_order(&frames::encode_expect(2)).unwrap(),
        Some(Order::Expect(2))
    ));
    assert!(matches!(
        decode_order(&frames::encode_lost(2)).unwrap(),
        Some(Order::Lost(2))
    ));
    assert!(decode_order(b"").unwrap().is_none());
    for damaged in [
        &[9][..],
        &[0, 1],
        &[1, b'{'],
        &[2, 1],
        &whole[..whole.len() - 1],
    ] {
        assert!(decode_order(damaged).is_err(), "{damaged:?}");
    }
}

#[test]
fn reports_arrive_as_they_were() {
    let relation = RelationId(7);
    let sink = Report::Sink {
        relation,
        epoch: Epoch(3),
        hash: 11,
        changes: vec![changes(vec![1]), changes(vec![-2, 5])],
    };
    let bytes = sink
        .encode(&mut BatchWriter::new(Compression::None))
        .unwrap();
    let Some(Report::Sink {
        epoch,
        hash,
        changes,
        ..
    }) = Report::decode(&bytes, &mut BatchReader::default()).unwrap()
    else {
        panic!("rows of a sink were sent");
    };
    assert_eq!((epoch, hash, changes.len()), (Epoch(3), 11, 2));
    assert_eq!(changes[1].num_rows(), 2);
    assert!(Report::decode(&bytes[..bytes.len() - 1], &mut BatchReader::default()).is_err());
    let event = Report::Event(Event::Active)
        .encode(&mut BatchWriter::new(Compression::None))
        .unwrap();
    assert!(matches!(
        Report::decode(&event, &mut BatchReader::default()).unwrap(),
        Some(Report::Event(Event::Active))
    ));
    let figures = vec![JobReport {
        relation,
        rows: 5,
        late: 1,
        memory: vec![1, 2],
        trouble: vec![(4, "away".into())],
    }];
    let sent = Report::Figures(figures)
        .encode(&mut BatchWriter::new(Compression::None))
        .unwrap();
    let arrived = Report::decode(&sent, &mut BatchReader::default()).unwrap();
    assert!(matches!(arrived, Some(Report::Figures(f)) if f[0].rows == 5));
    let (member, error) = (3, "it is silent".to_string());
    let sent = Report::Lost { member, error }
        .encode(&mut BatchWriter::new(Compression::None))
        .unwrap();
    let arrived = Report::decode(&sent, &mut BatchReader::default()).unwrap();
    assert!(matches!(arrived, Some(Report::Lost { member: 3, error }) if error == "it is silent"));
    assert!(Report::decode(&[7], &mut BatchReader::default()).is_err());
}

#[test]
fn all_of_a_crew_know_the_same_placement() {
    let mate = |member, workers| Mate {
        member,
        rpc: format!("n{member}:1"),
        workers,
    };
    let muster = Muster {
        generation: 12,
        nodes: vec![mate(3, 2), mate(1, 1)],
        you: 1,
        batch_rows_max: 10,
        edge_bytes_max: 20,
        compression: Compression::None,
    };
    let placement = muster.placement();
    assert_eq!((placement.version(), placement.workers()), (12, 3));
    assert_eq!(placement.workers_of(1), 2..3);
    assert_eq!(
        (placement.all().workers(), placement.workers_of(0)),
        (3, 0..2)
    );
}
