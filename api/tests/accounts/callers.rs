//! Callers and methods: what is refused before the form of a request is looked at. Which caller may
//! call what is one table for all services, executed by the tests of the program.

use serde_json::json;

use crate::service::Service;

#[tokio::test]
async fn credentials_come_before_the_form_of_the_request() {
    let service = Service::start().await;
    let user = service.register("ada@example.com").await.access_token;
    let bad = json!({"nonsense": true});
    for (method, path) in
        [("POST", "/api/users"), ("PATCH", "/api/users/x"), ("PUT", "/api/users/x/subscription")]
    {
        let nobody = service.call(method, path).json(bad.clone()).send().await;
        assert_eq!(nobody.status, 401, "{method} {path}");
        let call = service.call(method, path).bearer(&user).json(bad.clone());
        assert_eq!(call.send().await.status, 403, "{method} {path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_with_those_that_there_are() {
    let service = Service::start().await;
    let answer = service.call("DELETE", "/api/preferences/me").send().await;
    assert_eq!(answer.outcome(), (405, "method_not_allowed"));
    let allowed = answer.headers["allow"].to_str().unwrap();
    assert!(allowed.contains("GET") && allowed.contains("PUT"), "{allowed}");
}
