//! The log as programs read it.

use crate::pods::{Plan, scratch};

#[test]
fn a_json_log_has_one_object_a_line() {
    let dir = scratch();
    let plan = Plan::new(dir.path(), 1, &["--log-format", "json"]);
    let pod = plan.start(0);
    pod.wait_ready();
    let (code, lines) = pod.terminate();
    assert_eq!(code, Some(0));
    let mut messages = Vec::new();
    for line in &lines {
        let event: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        for name in ["timestamp", "level", "target"] {
            assert!(event[name].is_string(), "{line}");
        }
        messages.push(event["fields"]["message"].as_str().unwrap().to_owned());
    }
    for message in ["start", "the cluster has formed", "stopping", "stopped"] {
        assert_eq!(messages.iter().filter(|said| *said == message).count(), 1, "{message}: {lines:#?}");
    }
}
