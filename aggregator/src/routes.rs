//! What the operations listener serves of this service.

use axum::extract::State;
use axum::routing::get;
use edge::{Problem, Routes, Success};

use crate::reconcile::Book;
use crate::run::Aggregator;

/// The routes of [`routes`].
pub const ROUTES: &[(&str, &str)] = &[("GET", "/reconcile/counter")];

/// For the operations listener, never for the public: `GET /reconcile/counter` answers the book R5,
/// which only the process that holds the counter can compare.
pub fn routes(aggregator: Aggregator) -> Routes {
    Routes::new().route("/reconcile/counter", get(counter_book)).with_state(aggregator)
}

async fn counter_book(State(aggregator): State<Aggregator>) -> Result<Success<Book>, Problem> {
    Ok(edge::ok(aggregator.counter_book().await?))
}
