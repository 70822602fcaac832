//! Parameters of the query and the path.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_path_to_error::Segment;

use crate::code::Code;
use crate::problem::Problem;

/// The parameters of the query, read into this shape; unknown ones are ignored.
///
/// Rejection: 422 `invalid_request` that names the parameter.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(parts.uri.query().unwrap_or("")).map(Self)
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    if let Some((name, _)) = pairs.clone().find(|(_, value)| value.contains('\0')) {
        return Err(Problem::parameter(&name, "must have no U+0000"));
    }
    let reader = serde_urlencoded::Deserializer::new(pairs);
    serde_path_to_error::deserialize(reader).map_err(|error| {
        let message = error.inner().to_string();
        let in_path = error.path().iter().find_map(|segment| match segment {
            Segment::Map { key } => Some(key.as_str()),
            Segment::Seq { .. } | Segment::Enum { .. } | Segment::Unknown => None,
        });
        let name = in_path.or_else(|| message.split('`').nth(1)).unwrap_or("?");
        Problem::parameter(name, &*message)
    })
}

/// The parameters of the path; 404 when they are not even text.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(path) => Ok(Self(path.0)),
            Err(_) => Err(Problem::new(Code::NotFound, "there is nothing here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Page {
        limit: Option<u8>,
        cursor: Option<String>,
    }

    #[test]
    fn a_bad_parameter_is_named() {
        let page: Page = read("limit=7&cursor=a%20b&other=1").unwrap();
        assert_eq!((page.limit, page.cursor.as_deref()), (Some(7), Some("a b")));
        for (query, name) in [
            ("limit=x", "limit"),
            ("limit=300", "limit"),
            ("cursor=%00", "cursor"),
            ("limit=1&limit=2", "limit"),
        ] {
            let problem = read::<Page>(query).unwrap_err();
            assert_eq!(problem.code(), Code::InvalidRequest);
            assert!(problem.detail().starts_with(name), "{query}: {}", problem.detail());
        }
    }
}
