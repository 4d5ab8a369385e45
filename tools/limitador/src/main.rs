//! Limitador as Envoy's rate-limit service, for tests. The server of that name is not on crates.io; this is its library,
//! with its counters in memory, behind the same service, which reads a request as that server does.

use std::collections::HashMap;
use std::error::Error;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use limitador::RateLimiter;
use limitador::limit::{Context, Limit};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const USAGE: &str = "usage: vkey-limitador LIMITS_FILE";

/// How many counters are kept.
const MAX_COUNTERS: u64 = 10_000;

struct Service(RateLimiter);

#[tonic::async_trait]
impl RateLimitService for Service {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let entries = |descriptor: &envoy_types::pb::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor| {
            let entries = descriptor.entries.iter();
            entries.map(|entry| (entry.key.clone(), entry.value.clone())).collect()
        };
        let descriptors: Vec<HashMap<String, String>> =
            request.descriptors.iter().map(entries).collect();
        let mut context = Context::default();
        context.list_binding("descriptors".to_owned(), descriptors);
        // It reads the addend of the request alone, not those of descriptors.
        let addend = request.hits_addend.max(1);
        let domain = request.domain.into();
        let checked = self.0.check_rate_limited_and_update(&domain, &context, addend.into());
        let mut checked = checked.map_err(|error| {
            eprintln!("vkey-limitador: {error}");
            Status::unavailable("the limits cannot be checked")
        })?;
        let code = if checked.limited { Code::OverLimit } else { Code::Ok };
        let header = |(key, value)| HeaderValue { key, value, ..HeaderValue::default() };
        Ok(Response::new(RateLimitResponse {
            overall_code: code.into(),
            response_headers_to_add: checked.response_header().into_iter().map(header).collect(),
            ..RateLimitResponse::default()
        }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [limits] = arguments.as_slice() else { return Err(USAGE.into()) };
    let limits: Vec<Limit> = serde_saphyr::from_str(&std::fs::read_to_string(limits)?)?;
    let limiter = RateLimiter::new(MAX_COUNTERS);
    for limit in limits {
        limiter.add_limit(limit);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    tonic::transport::Server::builder()
        .add_service(RateLimitServiceServer::new(Service(limiter)))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await?;
    Ok(())
}
