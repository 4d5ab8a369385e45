//! Takes audit records from Envoy's access log service (`envoy/service/accesslog/v3/als.proto`).
//!
//! Envoy sends messages for as long as it runs, and expects no response. A message is read when all of the one before it
//! has gone to the writer. So if the writer is behind, HTTP/2 flow control stops Envoy, which then drops entries and
//! counts them. Records that are dropped are gaps of their chains.

mod entry;
mod flags;
mod messages;

use std::error::Error as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::sync::Semaphore;
use tonic::codegen::BoxFuture;
use tonic::server::{ClientStreamingService, Grpc};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::{Inlet, LineReader};
use crate::store::{Batch, Item};
use messages::StreamAccessLogsMessage;

/// The one method of the service.
const PATH: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// The longest message, in bytes. Envoy's have 16 KiB, or `buffer_size_bytes`, and one entry more.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// The most streams at a time. Each worker of an Envoy has one.
const MAX_STREAMS: usize = 1024;

/// The most items of a batch.
const MAX_ITEMS: usize = 1000;

/// A service for the access loggers of Envoys, over HTTP/2. What it takes is sent to a writer.
///
/// With `only_chained`, what has no place in a chain is counted as `unchained_over_grpc` and not stored. Set it if the
/// same lines also come in another way: nothing shows that such a line is there already.
pub fn access_log_service(to: Inlet, reader: LineReader, only_chained: bool) -> Router {
    let streams = Arc::new(Semaphore::new(MAX_STREAMS));
    router(Service { to, reader, only_chained, streams })
}

fn router(service: Service) -> Router {
    Router::new().route(PATH, post(stream_access_logs)).with_state(service)
}

async fn stream_access_logs(State(service): State<Service>, request: Request) -> Response {
    let codec = ProstCodec::<(), StreamAccessLogsMessage>::default();
    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_MESSAGE_BYTES);
    grpc.client_streaming(service, request).await.into_response()
}

#[derive(Clone)]
struct Service {
    to: Inlet,
    reader: LineReader,
    only_chained: bool,
    streams: Arc<Semaphore>,
}

impl ClientStreamingService<StreamAccessLogsMessage> for Service {
    type Response = ();
    type Future = BoxFuture<tonic::Response<()>, Status>;

    fn call(
        &mut self,
        request: tonic::Request<Streaming<StreamAccessLogsMessage>>,
    ) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { service.take(request.into_inner()).await.map(tonic::Response::new) })
    }
}

// === impl Service ===

impl Service {
    /// Takes all messages of a stream.
    async fn take(self, mut messages: Streaming<StreamAccessLogsMessage>) -> Result<(), Status> {
        let _permit = self.streams.try_acquire().map_err(|_| {
            Status::resource_exhausted(format!("there are {MAX_STREAMS} streams already"))
        })?;
        loop {
            match messages.message().await {
                Ok(None) => return Ok(()),
                Ok(Some(message)) => self.take_message(message).await?,
                Err(status) => {
                    // One that has a source is about the connection, which ends when Envoy does.
                    if status.source().is_none() {
                        let text = format!("a message of an access logger: {}", status.message());
                        self.send(vec![Item::Finding("unreadable", text)]).await?;
                    }
                    return Err(status);
                }
            }
        }
    }

    async fn take_message(&self, message: StreamAccessLogsMessage) -> Result<(), Status> {
        let http = message.http_logs.unwrap_or_default().log_entry;
        for entries in http.chunks(MAX_ITEMS) {
            self.send(entries.iter().map(|entry| self.item(entry)).collect()).await?;
        }
        let tcp = message.tcp_logs.unwrap_or_default().log_entry;
        for entries in tcp.chunks(MAX_ITEMS) {
            self.send(entries.iter().map(|_| Item::Counted("tcp_over_grpc")).collect()).await?;
        }
        Ok(())
    }

    fn item(&self, entry: &[u8]) -> Item {
        match entry::audit_line(entry) {
            Err(reason) => Item::Finding("unreadable", format!("an access log entry: {reason}")),
            Ok(None) => Item::Counted("intermediate_over_grpc"),
            Ok(Some(line)) => match self.reader.read(&line) {
                Item::Record(record) if self.only_chained && record.link.is_none() => {
                    Item::Counted("unchained_over_grpc")
                }
                item => item,
            },
        }
    }

    /// Sends items to the writer, as soon as it has room for them.
    async fn send(&self, items: Vec<Item>) -> Result<(), Status> {
        let sent = self.to.send(Batch { items, position: None }).await;
        sent.map_err(|_| Status::unavailable("the collector ends"))
    }
}

#[cfg(test)]
mod tests;
