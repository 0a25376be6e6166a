//! What holds for every route: the document, credentials, tenants, request ids, methods.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::http::Client;
use crate::support::{ACME, OTHER, Server, TWO_TENANTS};

/// A documented route, a request that exercises it, and what it answers to a context `c` with one item.
type Exercise = (&'static str, &'static str, &'static str, &'static str, u16);

/// Method, path as documented, path as requested, body, status. Destructive ones come last.
const EXERCISES: &[Exercise] = &[
    ("get", "/healthz", "/healthz", "", 200),
    ("get", "/readyz", "/readyz", "", 200),
    ("post", "/v1/contexts", "/v1/contexts", r#"{"agent_id":"a"}"#, 201),
    ("get", "/v1/contexts", "/v1/contexts?agent_id=a&limit=1", "", 200),
    ("get", "/v1/contexts/{id}", "/v1/contexts/c", "", 200),
    (
        "patch",
        "/v1/contexts/{id}",
        "/v1/contexts/c",
        r#"{"name":"n"}"#,
        200,
    ),
    (
        "post",
        "/v1/contexts/{id}/items",
        "/v1/contexts/c/items",
        r#"{"items":[{"role":"user","content":"b"}]}"#,
        200,
    ),
    (
        "get",
        "/v1/contexts/{id}/items",
        "/v1/contexts/c/items?limit=1",
        "",
        200,
    ),
    (
        "get",
        "/v1/contexts/{id}/window",
        "/v1/contexts/c/window?max_tokens=50",
        "",
        200,
    ),
    (
        "put",
        "/v1/contexts/{id}/summary",
        "/v1/contexts/c/summary",
        r#"{"first_seq":1,"last_seq":1,"text":"an a"}"#,
        200,
    ),
    (
        "get",
        "/v1/contexts/{id}/summary",
        "/v1/contexts/c/summary?first_seq=1&last_seq=1",
        "",
        200,
    ),
    (
        "post",
        "/v1/contexts/{id}/truncate",
        "/v1/contexts/c/truncate",
        r#"{"max_tokens":50}"#,
        200,
    ),
    (
        "post",
        "/v1/contexts/{id}/fork",
        "/v1/contexts/c/fork",
        r#"{"context":{"agent_id":"b"}}"#,
        201,
    ),
    (
        "post",
        "/v1/contexts/{id}/search",
        "/v1/contexts/c/search",
        r#"{"query":"b"}"#,
        200,
    ),
    ("post", "/v1/search", "/v1/search", r#"{"query":"b"}"#, 200),
    ("post", "/v1/batch", "/v1/batch", r#"{"get":["c"]}"#, 200),
    (
        "get",
        "/v1/contexts/{id}/export",
        "/v1/contexts/c/export",
        "",
        200,
    ),
    (
        "post",
        "/v1/import",
        "/v1/import",
        r#"{"id":"i","messages":[]}"#,
        200,
    ),
    (
        "post",
        "/v1/contexts/{id}/replace",
        "/v1/contexts/c/replace",
        r#"{"items":[]}"#,
        200,
    ),
    ("get", "/metrics", "/metrics", "", 200),
    // These have nothing to show with the embedded store; `admin` shows them with Postgres.
    ("get", "/admin/v1/database", "/admin/v1/database", "", 404),
    ("get", "/admin/v1/queries", "/admin/v1/queries", "", 404),
    ("get", "/admin/v1/cache", "/admin/v1/cache", "", 200),
    ("get", "/admin/v1/rollout", "/admin/v1/rollout", "", 200),
    (
        "patch",
        "/admin/v1/rollout",
        "/admin/v1/rollout",
        r#"{"l1":"on"}"#,
        200,
    ),
    ("delete", "/v1/contexts/{id}", "/v1/contexts/c", "", 204),
];

fn exercise(client: &Client, (method, _, path, body, status): &Exercise) {
    let answer = client.send(&method.to_uppercase(), path, &[], body);
    assert_eq!(answer.status, *status, "{method} {path}: {}", answer.text());
}

fn create(client: &Client) {
    client.post("/v1/contexts", r#"{"id":"c","agent_id":"a"}"#).ok();
    let item = r#"{"items":[{"role":"user","content":"a"}]}"#;
    client.post("/v1/contexts/c/items", item).ok();
}

#[test]
fn every_documented_route_answers_as_documented() {
    let server = Server::start();
    let client = server.client();
    create(&client);
    let document = client.get("/openapi.json").ok();
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        documented.extend(
            methods
                .as_object()
                .unwrap()
                .keys()
                .map(|method| (method.clone(), path.clone())),
        );
    }
    let exercised: BTreeSet<(String, String)> = EXERCISES
        .iter()
        .map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(
        documented, exercised,
        "each documented route has one line in EXERCISES"
    );
    for route in EXERCISES {
        exercise(&client, route);
    }
}

#[test]
fn another_tenant_finds_nothing_anywhere() {
    let server = Server::with(TWO_TENANTS);
    create(&server.client_with(ACME));
    let other = server.client_with(OTHER);
    for (method, path, request, body, _) in EXERCISES {
        if path.contains("{id}") {
            let answer = other.send(&method.to_uppercase(), request, &[], body);
            answer.problem(404, "not_found");
        }
    }
    assert_eq!(other.get("/v1/contexts").ok()["contexts"], json!([]));
    assert_eq!(
        other.post("/v1/search", r#"{"query":"a"}"#).ok()["hits"],
        json!([])
    );
    create(&other);
    assert_eq!(other.delete("/v1/contexts/c").status, 204);
    assert_eq!(
        server.client_with(ACME).get("/v1/contexts/c").ok()["item_count"],
        1
    );
}

#[test]
fn without_a_known_credential_only_health_and_the_document_answer() {
    let server = Server::with(TWO_TENANTS);
    let headers: [&[(&str, &str)]; 4] = [
        &[],
        &[("authorization", "Bearer acme-secret-0123456780")],
        &[("authorization", "Basic YWNtZTphY21l")],
        &[("authorization", "Bearer ")],
    ];
    for headers in headers {
        for (method, path, request, body, _) in EXERCISES {
            let answer = server
                .client()
                .send(&method.to_uppercase(), request, headers, body);
            if matches!(*path, "/healthz" | "/readyz") {
                assert_eq!(answer.status, 200);
            } else {
                answer.problem(401, "unauthorized");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
        }
        server
            .client()
            .send("GET", "/v1/no/such/path", headers, "")
            .problem(401, "unauthorized");
    }
    server.client().get("/openapi.json").ok();
    assert!(
        !server.log().contains("secret-0123456789"),
        "a secret is in the log"
    );
}

#[test]
fn a_web_page_does_not_reach_a_server_without_keys() {
    let server = Server::start();
    for origin in ["https://evil.example", "null"] {
        let answer = server
            .client()
            .send("GET", "/v1/contexts", &[("origin", origin)], "");
        answer.problem(401, "unauthorized");
    }
    let rebound = b"GET /v1/contexts HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n";
    server.client().raw_response(rebound).problem(401, "unauthorized");
}

#[test]
fn a_request_id_is_passed_on_if_it_is_one_and_made_if_not() {
    let server = Server::start();
    let id = |headers: &[(&str, &str)]| {
        let answer = server.client().send("GET", "/v1/contexts/none", headers, "");
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(id(&[("x-request-id", "abc-1")]), "abc-1");
    let long = "x".repeat(129);
    for odd in ["a b", "\u{fc}", long.as_str()] {
        assert_ne!(id(&[("x-request-id", odd)]), odd);
    }
    assert_ne!(id(&[]), id(&[]));
}

#[test]
fn head_answers_like_get_without_a_body() {
    let server = Server::start();
    let client = server.client();
    create(&client);
    for path in ["/v1/contexts/c", "/v1/contexts/c/window", "/healthz"] {
        let (get, head) = (client.get(path), client.send("HEAD", path, &[], ""));
        assert_eq!(head.status, 200);
        assert_eq!(
            head.header("content-length"),
            Some(get.body.len().to_string().as_str()),
            "{path}"
        );
        assert_eq!(head.header("etag"), get.header("etag"));
    }
    assert_eq!(client.send("HEAD", "/v1/contexts/none", &[], "").status, 404);
}

#[test]
fn every_answer_says_its_length() {
    let server = Server::start();
    let client = server.client();
    create(&client);
    for path in [
        "/v1/contexts",
        "/v1/contexts/c",
        "/v1/contexts/c/items",
        "/v1/nothing",
    ] {
        let answer = client.get(path);
        assert_eq!(
            answer.header("content-length"),
            Some(answer.body.len().to_string().as_str()),
            "{path}"
        );
    }
}

#[test]
fn another_method_is_told_which_ones_there_are() {
    let server = Server::start();
    for (method, path, allowed) in [
        ("PUT", "/v1/contexts", ["GET", "POST"].as_slice()),
        ("POST", "/v1/contexts/c", &["DELETE", "GET", "PATCH"]),
        ("GET", "/v1/contexts/c/fork", &["POST"]),
        ("TRACE", "/v1/import", &["POST"]),
        ("POST", "/healthz", &["GET"]),
    ] {
        let answer = server.client().send(method, path, &[], "");
        answer.problem(405, "method_not_allowed");
        let allow = answer.header("allow").unwrap_or_default();
        for method in allowed {
            assert!(
                allow.split(',').any(|one| one.trim() == *method),
                "{path} allows {allow:?}"
            );
        }
    }
}

#[test]
fn a_path_that_is_not_there_is_told_where_the_list_is() {
    let server = Server::start();
    for path in [
        "/",
        "/v1",
        "/v2/contexts",
        "/v1/contexts/c/items/1",
        "/v1/contexts/",
        "//v1/contexts",
    ] {
        let problem = server.client().get(path).problem(404, "route_not_found");
        assert!(problem["hint"].as_str().unwrap().contains("/openapi.json"));
    }
}

#[test]
fn the_openapi_document_names_every_error_as_a_problem() {
    let server = Server::start();
    let document = server.client().get("/openapi.json").ok();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let problem = "/content/application~1problem+json";
            let responses = &operation["responses"];
            let named = ["default", "403", "503"]
                .iter()
                .any(|status| responses[status].pointer(problem).is_some());
            assert!(named || path == "/healthz", "{method} {path}");
        }
    }
}
