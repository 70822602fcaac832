//! The routes of a listener, with what they are called.

use axum::Router;
use axum::routing::MethodRouter;

/// A router that also says which paths it has: metrics are by path.
#[derive(Debug)]
pub struct Routes<S = ()> {
    pub(crate) router: Router<S>,
    pub(crate) paths: Vec<&'static str>,
}

impl<S: Clone + Send + Sync + 'static> Default for Routes<S> {
    fn default() -> Self {
        Self { router: Router::new(), paths: vec![] }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more: `path` as [`Router::route`] takes it, once or with other methods again.
    #[must_use]
    pub fn route(mut self, path: &'static str, methods: MethodRouter<S>) -> Self {
        self.paths.push(path);
        Self { router: self.router.route(path, methods), ..self }
    }

    /// Those of both. A route must not be in both.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        self.paths.extend(other.paths);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// With what their handlers need.
    #[must_use]
    pub fn with_state(self, state: S) -> Routes {
        Routes { router: self.router.with_state(state), paths: self.paths }
    }
}
