use proto::session as pb;

use super::*;

fn method(name: &str) -> MethodDescriptor {
    let mut pool = prost_reflect::DescriptorPool::new();
    pool.decode_file_descriptor_set(proto::FILE_DESCRIPTOR_SET).unwrap();
    let service = pool.get_service_by_name("session.SessionService").unwrap();
    service.methods().find(|method| method.name() == name).unwrap()
}

#[test]
fn requests_take_both_spellings_of_a_field() {
    let method = method("CreateSession");
    let messages =
        parse(&method, r#"{"user_id": "ada", "client_port": 1} {"userId": "ada", "clientPort": 1}"#).unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0], messages[1]);
    let typed: pb::CreateSessionRequest = messages[0].transcode_to().unwrap();
    assert_eq!((typed.user_id.as_str(), typed.client_port), ("ada", 1));
}

#[test]
fn a_request_of_the_wrong_shape_says_where_to_look() {
    for text in ["{\"user\": 1}", "{", "[]", "{} x"] {
        let error = parse(&method("CreateSession"), text).unwrap_err();
        assert!(error.to_string().contains("describe session.CreateSessionRequest"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    assert!(parse(&method("CreateSession"), " ").unwrap().is_empty());
}

#[test]
fn headers_become_metadata() {
    let headers = ["x-session-token: abc:def".to_owned(), "Trace-Bin: AQI=".to_owned()];
    let map = metadata(&headers).unwrap();
    assert_eq!(map.get("x-session-token").unwrap(), "abc:def");
    assert_eq!(map.get_bin("trace-bin").unwrap().to_bytes().unwrap().as_ref(), [1, 2]);
    for wrong in ["novalue", "bad name: x", "a-bin: !"] {
        assert!(metadata(&[wrong.to_owned()]).is_err(), "{wrong}");
    }
}

#[test]
fn the_exit_code_tells_the_status() {
    assert_eq!(CallError::from(Status::not_found("x")).exit_code(), 69);
    assert_eq!(CallError::from(Status::deadline_exceeded("x")).to_string(), "DEADLINE_EXCEEDED: x");
}

#[test]
fn descriptions_read_like_the_source() {
    let method = method("CreateSession");
    let pool = method.parent_pool();
    let text = describe::describe(pool, "session.SessionService.CreateSession").unwrap();
    assert!(text.contains("rpc CreateSession(session.CreateSessionRequest) returns"), "{text}");
    assert!(text.contains("  map<string, string> metadata = "), "{text}");
    assert!(text.contains("  string user_id = 1;"), "{text}");
    let text = describe::describe(pool, "session.SessionState").unwrap();
    assert!(text.starts_with("enum session.SessionState {\n"), "{text}");
    assert!(describe::describe(pool, "session.Nothing").is_err());
}
