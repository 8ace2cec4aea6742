//! The S3 front: s3s reads requests and checks signatures, the object layer does what they ask.

mod auth;
mod buckets;
mod convert;
mod errors;
mod objects;
mod operations;
mod region;
mod retention;
mod sums;
mod tagging;
mod uploads;
mod versions;

use std::sync::Arc;
use std::time::Instant;

use diptych_wire::http::HttpBody;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use s3s::service::{S3Service, S3ServiceBuilder};

use crate::context::Context;
use crate::error::GatewayError;
use crate::linger::Lingering;
use crate::objects::Objects;
use crate::server::{Answer, Front};
use auth::{KeyAccess, KeySecrets};
use operations::S3Front;

/// What answers requests of S3.
pub(crate) fn answer(context: Arc<Context>, objects: Objects) -> Answer {
    let mut builder = S3ServiceBuilder::new(S3Front { objects });
    builder.set_auth(KeySecrets { context: context.clone() });
    builder.set_access(KeyAccess { context: context.clone() });
    let service = builder.build();
    Arc::new(move |request| {
        let (context, service) = (context.clone(), service.clone());
        Box::pin(async move { call(&context, &service, request).await })
    })
}

async fn call(context: &Context, service: &S3Service, request: Request<Incoming>) -> Response<HttpBody> {
    let begun = Instant::now();
    let method = request.method().as_str().to_owned();
    let request = Lingering::of(request);
    let response = match region::refused(request.headers()) {
        Some(response) => response,
        None => match service.call(request.map(s3s::Body::http_body)).await {
            Ok(response) => errors::explained(response.map(BodyExt::boxed_unsync)).await,
            Err(error) => {
                tracing::error!(?error, "a request could not be answered");
                failed(&GatewayError::Internal("the request could not be answered".to_owned()))
            }
        },
    };
    let metrics = context.metrics();
    let front = Front::S3.as_str();
    let status = response.status().as_u16().to_string();
    metrics.requests.with_label_values(&[front, &method, &status]).inc();
    metrics.latency.with_label_values(&[front, &method]).observe(begun.elapsed().as_secs_f64());
    if response.status().is_client_error() || response.status().is_server_error() {
        metrics.refusals.with_label_values(&[front, &status]).inc();
    }
    response
}

fn failed(error: &GatewayError) -> Response<HttpBody> {
    let mut response = Response::new(diptych_wire::http::full(error.to_string()));
    *response.status_mut() = error.status();
    response
}
