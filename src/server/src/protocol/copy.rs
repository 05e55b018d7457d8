//! COPY over the wire: `COPY t FROM STDIN` splits the client's bytes into lines as they come
//! ([`lines`]), of which the session makes columns; `COPY .. TO STDOUT` sends rows as text or CSV.

use super::{Connection, Failure, encode, next_batch};
use arrow::array::RecordBatch;
use bytes::{BufMut, BytesMut};
use pgwire::messages::copy::{CopyData, CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tidemark_common::{Error, Result, SqlState};
use tidemark_query::copy::CopyOptions;
use tidemark_query::copy::lines::{Splitter, put_field};
use tidemark_query::copy::options::Header;
use tidemark_query::dml::CopyRows;
use tidemark_query::outcome::{CopyIn, CopyOut};
use tidemark_values::moment::Zone;

impl Connection {
    pub(super) async fn copy_out(&mut self, mut out: CopyOut) -> Result<(), Failure> {
        let columns = out.rows.schema.fields().len();
        self.line
            .feed(PgWireBackendMessage::CopyOutResponse(CopyOutResponse::new(
                0,
                columns as i16,
                vec![0; columns],
            )))
            .await?;
        if out.options.header != Header::No {
            let mut line = BytesMut::new();
            for (i, field) in out.rows.schema.fields().iter().enumerate() {
                if i > 0 {
                    line.put_u8(out.options.delimiter);
                }
                put_field(field.name().as_bytes(), &out.options, false, &mut line);
            }
            line.put_u8(b'\n');
            self.line
                .feed(PgWireBackendMessage::CopyData(CopyData::new(line.freeze())))
                .await?;
        }
        let mut sent = 0;
        let zone = self.session.zone();
        let stream = &mut out.rows.stream;
        loop {
            if stream.is_live() {
                self.line.flush().await?;
            }
            let Some(batch) = self.line.drive(next_batch(stream)).await? else {
                break;
            };
            for line in lines(&batch, &out.options, &zone)? {
                self.line
                    .feed(PgWireBackendMessage::CopyData(CopyData::new(line)))
                    .await?;
            }
            sent += batch.num_rows();
        }
        self.line
            .feed(PgWireBackendMessage::CopyDone(CopyDone::new()))
            .await?;
        self.line.complete(&format!("COPY {sent}")).await
    }

    pub(super) async fn copy_in(&mut self, target: CopyIn) -> Result<(), Failure> {
        let columns = target.columns.len();
        let response = CopyInResponse::new(0, columns as i16, vec![0; columns]);
        self.line
            .send(PgWireBackendMessage::CopyInResponse(response))
            .await?;
        let mut splitter = Splitter::new(target.options.clone());
        let mut rows = CopyRows::default();
        loop {
            match self.line.next().await? {
                PgWireFrontendMessage::CopyData(part) => {
                    let lines = splitter.add(&part.data)?;
                    if !lines.is_empty() {
                        let kept = self.session.copy_lines(&target, &mut rows, lines);
                        self.line.drive(kept).await?;
                    }
                }
                PgWireFrontendMessage::CopyDone(_) => break,
                PgWireFrontendMessage::CopyFail(fail) => {
                    return Err(Error::user(
                        SqlState::QUERY_CANCELED,
                        format!("COPY from stdin failed: {}", fail.message),
                    )
                    .into());
                }
                PgWireFrontendMessage::Flush(_) | PgWireFrontendMessage::Sync(_) => {}
                _ => {
                    return Err(Error::user(
                        SqlState("08P01"),
                        "unexpected message type during COPY from stdin",
                    )
                    .into());
                }
            }
        }
        let lines = splitter.finish()?;
        let session = &mut self.session;
        let ended = async {
            session.copy_lines(&target, &mut rows, lines).await?;
            session.copy_end(&target, rows).await
        };
        let rows = self.line.drive(ended).await?;
        self.line.complete(&format!("COPY {rows}")).await
    }
}

/// The lines of a batch.
fn lines(batch: &RecordBatch, options: &CopyOptions, zone: &Zone) -> Result<Vec<bytes::Bytes>> {
    let cells = encode::cells(batch, zone)?;
    let mut out = Vec::with_capacity(batch.num_rows());
    let mut value = BytesMut::new();
    for row in 0..batch.num_rows() {
        let mut line = BytesMut::new();
        for (i, cell) in cells.iter().enumerate() {
            if i > 0 {
                line.put_u8(options.delimiter);
            }
            if cell.is_null(row) {
                line.put_slice(options.null.as_bytes());
                continue;
            }
            value.clear();
            cell.text(row, &mut value);
            put_field(&value, options, options.force_quote.has(i), &mut line);
        }
        line.put_u8(b'\n');
        out.push(line.freeze());
    }
    Ok(out)
}
