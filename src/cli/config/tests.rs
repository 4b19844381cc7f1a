use super::*;
use expect_test::{Expect, expect};

const WHOLE: &str = r#"pod = 1
data = "/tmp/pod-1"
[[peers]]
pod = 0
fabric = "127.0.0.1:8200"
[[peers]]
pod = 1
fabric = "127.0.0.1:8201"
[[peers]]
pod = 2
fabric = "localhost:8202"
"#;

fn read(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let owned = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    Config::read(&Sources {
        file: Some((Path::new("kassa.toml"), file)),
        environment: owned(environment),
        flags: owned(flags),
    })
}

fn refused(file: &str, expected: &Expect) {
    expected.assert_eq(&read(file, &[], &[]).unwrap_err().to_string());
}

#[test]
fn a_file_sets_what_it_names_and_defaults_the_rest() {
    let text = WHOLE.to_owned() + "[timing]\nelection_ms = 400\n[stock]\nwrite_quorum = \"all\"\n";
    let config = read(&text, &[], &[]).unwrap();
    assert_eq!(config.pod, PodId(1));
    assert_eq!(config.peers[&PodId(2)], "localhost:8202");
    assert_eq!(config.duration("timing.election_ms"), Duration::from_millis(400));
    assert_eq!(config.number("cluster.shards"), 24);
    assert_eq!(config.text("payment.protocol"), "paxos");
    assert_eq!(config.text("stock.protocol"), "quorum");
    assert_eq!(config.write_quorum, 3);
    assert_eq!(config.http.to_string(), "127.0.0.1:8000");
    assert_eq!(config.shown("peers"), "0 1 2");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let environment =
        [("KASSA_HTTP", "127.0.0.1:1"), ("KASSA_CLUSTER_SHARDS", "7"), ("KASSA_PORT_8000_TCP", "x")];
    let config = read(WHOLE, &environment, &[("cluster.shards", "9")]).unwrap();
    assert_eq!(config.http.port(), 1);
    assert_eq!(config.number("cluster.shards"), 9);
    let alone = [("peers", "0=h:1"), ("pod", "0"), ("cluster.replicas", "1")];
    let config = read(WHOLE, &[], &alone).unwrap();
    assert_eq!((config.write_quorum, config.payment_pods, config.stock_pods), (1, 1, 1));
    assert_eq!(config.peers, [(PodId(0), "h:1".to_owned())].into());
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    refused(
        "pod = 1\n\n[timing]\nhartbeat_ms = 5\n",
        &expect![
            "kassa.toml, line 4: `timing.hartbeat_ms` is no key; `kassa serve --print-config` shows all of them"
        ],
    );
    refused(
        "pod = 1\ncolour = 1\n",
        &expect!["kassa.toml, line 2: `colour` is no key; `kassa serve --print-config` shows all of them"],
    );
    refused(
        "[colours]\nred = 1\n",
        &expect!["kassa.toml, line 1: `colours` is no key; `kassa serve --print-config` shows all of them"],
    );
    refused(
        "timing = 3\n",
        &expect!["kassa.toml, line 1: `timing` is no key; `kassa serve --print-config` shows all of them"],
    );
    refused("pod = \"one\"\n", &expect!["kassa.toml, line 1: `pod`: a string is no whole number"]);
    refused("pod = 64\n", &expect!["kassa.toml, line 1: `pod`: 64 is out of range: 0 to 63"]);
    refused("pod = -1\n", &expect![[r#"kassa.toml, line 1: `pod`: "-1" is no whole number"#]]);
    refused("http = 8000\n", &expect!["kassa.toml, line 1: `http`: a integer is no text"]);
    refused(
        "http = \"localhost\"\n",
        &expect![[
            r#"kassa.toml, line 1: `http`: "localhost" is no address to listen on, such as 127.0.0.1:8000"#
        ]],
    );
    refused(
        "[stock]\nprotocol = \"raft\"\n",
        &expect![[r#"kassa.toml, line 2: `stock.protocol`: "raft" is not one of quorum, paxos"#]],
    );
    refused(
        "peers = [1]\n",
        &expect![[r#"kassa.toml, line 1: `peers`: each entry is { pod = 0, fabric = "127.0.0.1:8200" }"#]],
    );
    refused(
        "peers = \"0=127.0.0.1:1,0=127.0.0.1:2\"\n",
        &expect!["kassa.toml, line 1: `peers`: pod 0 is named twice"],
    );
    refused("pod = 1\npod = 2\n", &expect!["kassa.toml, line 2: duplicate key"]);
    refused("pod == 1\n", &expect!["kassa.toml, line 1: extra `=`, expected nothing"]);
    refused("pod = 1\n", &expect!["`data`: it must be set: in the file, by KASSA_DATA, or by --set"]);
}

#[test]
fn what_does_not_go_together_is_refused() {
    let with = |more: &str| WHOLE.replace("pod = 1\ndata", &format!("{more}\ndata"));
    refused(&with("pod = 3"), &expect!["kassa.toml, line 3: `peers`: this pod (3) must be among them"]);
    refused(
        &with("pod = 1\nfabric = \"0.0.0.0:8200\""),
        &expect![
            "kassa.toml, line 2: `fabric`: 0.0.0.0:8200 is not on loopback, and links between pods cannot be authenticated yet"
        ],
    );
    let and = |more: &str| WHOLE.to_owned() + more;
    refused(
        &and("[cluster]\nreplicas = 5\n"),
        &expect!["kassa.toml, line 13: `cluster.replicas`: 5 replicas need as many pods, and `peers` has 3"],
    );
    refused(
        &and("[stock]\nwrite_quorum = 1\n"),
        &expect![
            "kassa.toml, line 13: `stock.write_quorum`: 1 of 3 replicas: it must be more than half of them, and at most all"
        ],
    );
    let five = |more: &str| {
        let peers = "peers = \"0=h:1,1=h:2,2=h:3,3=h:4,4=h:5\"\n";
        format!("pod = 1\ndata = \"/tmp/pod-1\"\n{peers}{more}")
    };
    refused(
        &five("[payment]\npods = 2\n"),
        &expect![
            "kassa.toml, line 5: `payment.pods`: 2 of 5 pods: at least 3 must hold the module, as many as `cluster.replicas`, and at most all"
        ],
    );
    refused(
        &five("[stock]\npods = 6\n"),
        &expect![
            "kassa.toml, line 5: `stock.pods`: 6 of 5 pods: at least 3 must hold the module, as many as `cluster.replicas`, and at most all"
        ],
    );
    refused(
        &five("[stock]\npods = \"most\"\n"),
        &expect![[r#"kassa.toml, line 5: `stock.pods`: "most" is neither a number of pods nor "all""#]],
    );
    refused(
        &five("[stock]\npods = true\n"),
        &expect![[r#"kassa.toml, line 5: `stock.pods`: neither a number of pods nor "all""#]],
    );
    refused(
        &and("[timing]\nelection_ms = 60\n"),
        &expect![
            "kassa.toml, line 13: `timing.election_ms`: it must be at least twice `timing.heartbeat_ms`, or healthy leaders are deposed"
        ],
    );
}

#[test]
fn a_module_may_lie_on_some_of_the_pods() {
    let five = [("peers", "0=h:1,1=h:2,2=h:3,3=h:4,4=h:5")];
    let config = read(WHOLE, &[("KASSA_PAYMENT_PODS", "3"), ("KASSA_STOCK_PODS", "all")], &five).unwrap();
    assert_eq!((config.payment_pods, config.stock_pods), (3, 5));
    let config = read(WHOLE, &[("KASSA_CLUSTER_REPLICAS", "5")], &five).unwrap();
    assert_eq!((config.payment_pods, config.write_quorum), (5, 3), "a majority, if nothing is said");
}

#[test]
fn a_bad_flag_or_variable_names_itself() {
    let error = read(WHOLE, &[], &[("pod", "x")]).unwrap_err().to_string();
    expect![[r#"--set pod: `pod`: "x" is no whole number"#]].assert_eq(&error);
    let error = read(WHOLE, &[("KASSA_STOCK_WRITE_QUORUM", "most")], &[]).unwrap_err().to_string();
    expect![[
        r#"KASSA_STOCK_WRITE_QUORUM: `stock.write_quorum`: "most" is neither a number of replicas nor "all""#
    ]]
    .assert_eq(&error);
    let error = read(WHOLE, &[], &[("colour", "x")]).unwrap_err().to_string();
    expect!["--set colour: `colour` is no key; `kassa serve --print-config` shows all of them"]
        .assert_eq(&error);
}

#[test]
fn what_is_printed_is_a_configuration_and_shows_every_key() {
    let printed = print();
    for key in KEYS {
        let name = key.path.rsplit('.').next().unwrap();
        assert!(printed.contains(&format!("{name} =")), "{} is not shown", key.path);
    }
    let flags = [("pod", "0"), ("data", "/tmp/x"), ("peers", "0=h:1,1=h:2,2=h:3")];
    let config = read(&printed, &[], &flags).unwrap();
    let defaults = read("", &[], &flags).unwrap();
    assert_eq!(config.values, defaults.values);
}
