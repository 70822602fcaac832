//! Answers of what went well.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;

use crate::json;

/// A JSON answer: the object's members beside `"success": true`.
#[derive(Clone, Debug)]
pub struct Success<T>(pub StatusCode, pub T);

/// 200 with this object.
pub fn ok<T: Serialize>(body: T) -> Success<T> {
    Success(StatusCode::OK, body)
}

/// 201 with this object.
pub fn created<T: Serialize>(body: T) -> Success<T> {
    Success(StatusCode::CREATED, body)
}

#[derive(Serialize)]
struct Flat<'a, T> {
    success: bool,
    #[serde(flatten)]
    body: &'a T,
}

impl<T: Serialize> IntoResponse for Success<T> {
    fn into_response(self) -> Response {
        json::response(self.0, &Flat { success: true, body: &self.1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn success_stands_beside_the_members() {
        let response = created(serde_json::json!({"id": 7})).into_response();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body, r#"{"success":true,"id":7}"#);
    }
}
