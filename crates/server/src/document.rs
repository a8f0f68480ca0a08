//! JSON documents that clients send: small, typed, strict.

use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use bytes::BytesMut;
use diaspore_engine::api::BodyError;
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use crate::problem::Problem;
use crate::router::App;
use crate::upload::{Fate, Upload};

/// A JSON body of at most `Limits::json_bytes`, paced like any other body.
#[derive(Debug)]
pub(crate) struct Document<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<App> for Document<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = media.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::unsupported("send the document as application/json"));
        }
        let mut limits = app.limits().clone();
        limits.blob_bytes = limits.json_bytes as u64;
        let fate = request.extensions().get::<Arc<Fate>>().map(Arc::clone).unwrap_or_default();
        let mut upload = Upload::new(request.into_body(), &limits, Arc::clone(&fate));
        let mut bytes = BytesMut::new();
        while let Some(piece) = upload.next().await {
            let piece = piece.map_err(|error| match error {
                BodyError::TooLong { limit } => Problem::too_large(limit),
                BodyError::Aborted(_) if fate.stalled() => Problem::too_slow(),
                BodyError::Aborted(_) => Problem::invalid("the document ended early"),
            })?;
            bytes.extend_from_slice(&piece);
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| Problem::invalid(format!("the document is not as expected: {error}")))
    }
}
