//! The demo, as somebody sees it first: on a machine where other things run.

use std::process::{Command, Stdio};

use holm_e2e::need;
use serde_json::Value;

#[test]
fn two_demos_tell_their_story_side_by_side_where_usual_ports_are_taken() {
    // Where one can't be had here, somebody else has it, which is as good.
    let _taken = [8883, 443, 9600].map(|port| std::net::TcpListener::bind(("127.0.0.1", port)));
    let start = || {
        let mut demo = Command::new(need::holm());
        demo.args(["demo", "--for", "5", "--json"]);
        let demo = demo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        demo.expect("the binary can be started")
    };

    let demos = [start(), start()];

    for demo in demos {
        let done = demo.wait_with_output().expect("a child can be waited for");
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{error}");
        let said = String::from_utf8_lossy(&done.stdout);
        let last: Value = serde_json::from_str(said.lines().last().unwrap_or_default()).expect("it ends with JSON");
        assert!(last.is_object(), "{last}");
    }
}
