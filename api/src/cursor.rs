//! Pages of lists: how long they are, and opaque cursors, which are a position bound to the filters that
//! it was made under.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge::Problem;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Rows of a page when none are asked for.
const LIMIT_DEFAULT: usize = 50;

/// Rows of a page at most.
const LIMIT_MAX: usize = 200;

/// How many rows a page has under the parameter `limit`.
///
/// # Errors
/// 422 that names the parameter.
pub(crate) fn rows_max(limit: Option<usize>) -> Result<usize, Problem> {
    let limit = limit.unwrap_or(LIMIT_DEFAULT);
    let good = (1..=LIMIT_MAX).contains(&limit);
    good.then_some(limit).ok_or_else(|| Problem::parameter("limit", "must be from 1 to 200"))
}

#[derive(Serialize, Deserialize)]
struct Bound<P> {
    /// The position.
    p: P,
    /// A digest of the filters.
    f: String,
}

/// The text of a cursor: the position after which to go on, under these filters.
///
/// # Errors
/// 500 when a position cannot be written as JSON, which none of ours is.
pub(crate) fn encode(
    position: &impl Serialize,
    filters: &impl Serialize,
) -> Result<String, Problem> {
    let bound = Bound { p: position, f: digest(filters)? };
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(&bound).map_err(Problem::internal)?))
}

/// The position in a cursor.
///
/// # Errors
/// 422 that names the parameter `cursor`: it is none of ours, or was made under other filters.
pub(crate) fn decode<P: DeserializeOwned>(
    text: &str,
    filters: &impl Serialize,
) -> Result<P, Problem> {
    let foreign = || Problem::parameter("cursor", "must be a next_cursor of this list");
    let json = URL_SAFE_NO_PAD.decode(text).map_err(|_| foreign())?;
    let bound: Bound<P> = serde_json::from_slice(&json).map_err(|_| foreign())?;
    if bound.f != digest(filters)? {
        return Err(Problem::parameter("cursor", "was made under other filters"));
    }
    Ok(bound.p)
}

fn digest(filters: &impl Serialize) -> Result<String, Problem> {
    let json = serde_json::to_vec(filters).map_err(Problem::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(&Sha256::digest(json)[..9]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge::Code;
    use proptest::prelude::*;

    #[test]
    fn a_cursor_goes_on_under_its_own_filters_only() {
        let text = encode(&(7_u64, "x"), &("search", Some("ada"))).unwrap();
        assert_eq!(decode::<(u64, String)>(&text, &("search", Some("ada"))).unwrap().0, 7);
        let other = decode::<(u64, String)>(&text, &("search", Some("bob"))).unwrap_err();
        assert_eq!(other.code(), Code::InvalidRequest);
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_a_panic(text: String) {
            prop_assert!(decode::<u64>(&text, &()).is_err());
        }
    }
}
