//! Turns a list of rules into tests: each runs on a fresh store of its own.

/// `rules!(suite, module, make, [rule, …])`: a `module` with one test for each rule of
/// `contract::suite`; `make` answers what has the adapter in its field `store`.
macro_rules! rules {
    ($suite:ident, $module:ident, $make:expr, [$($rule:ident),+ $(,)?]) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $rule() {
                    let fresh = $make;
                    crate::contract::$suite::$rule(&fresh.store).await;
                }
            )+
        }
    };
}
