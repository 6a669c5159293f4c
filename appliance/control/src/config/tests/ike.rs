//! `[ike]`.

use super::*;

fn with(ike: &str) -> String {
    format!("[ike]\n{ike}\n{ROUTER}")
}

#[track_caller]
fn lines(text: &str) -> Vec<String> {
    let lines = match run(text) {
        Ok(checked) => checked.warnings.lines(),
        Err(report) => report.lines(),
    };
    lines.iter().map(|l| l.strip_prefix("px.toml:").unwrap_or(l).to_owned()).collect()
}

#[test]
fn what_is_not_said_has_a_default_that_gives_way_to_what_is() {
    let ike = run(ROUTER).unwrap().config.ike;
    assert_eq!(ike, Ike::default());
    assert_eq!((ike.limits.half_open, ike.limits.cookie_threshold, ike.retransmission.tries), (8192, 64, 6));
    let ike = run(&with("half_open = 50\nretransmit_ms = 250")).unwrap().config.ike;
    let l = &ike.limits;
    assert_eq!((l.ike_sas, l.half_open, l.cookie_threshold, l.half_open_per_source), (32_768, 50, 50, 50));
    assert_eq!((ike.retransmission.first_ms, ike.retransmission.tries, ike.key_log), (250, 6, None));
    let ike = run(&with("sas = 10\ncookie_threshold = 0\nchildren = 3\ninstall_ms = 700")).unwrap().config.ike;
    let l = &ike.limits;
    assert_eq!((l.half_open, l.cookie_threshold, l.children_per_ike, l.install_ms), (10, 0, 3, 700));
}

#[test]
fn bounds_have_bounds_and_do_not_contradict_each_other() {
    let found = lines(&with("sas = 0\nhalf_open_ms = 10\nretransmit_tries = 17\nchildren = -1\nhalfopen = 3"));
    assert_eq!(
        found,
        [
            "2: [ike]: `sas` must be 1 to 1048576",
            "3: [ike]: `half_open_ms` must be 1000 to 600000",
            "4: [ike]: `retransmit_tries` must be 0 to 16",
            "5: [ike]: `children`: invalid value: integer `-1`, expected u64",
            "6: [ike]: there is no key `halfopen` (did you mean `half_open`?)",
        ]
    );
    let found = lines(&with("sas = 100\nhalf_open = 200\ncookie_threshold = 201\nhalf_open_per_source = 7"));
    assert_eq!(
        found,
        [
            "3: [ike]: `half_open` is 200, more than `sas` (100)",
            "4: [ike]: `cookie_threshold` is 201, more than `half_open` (200)",
        ]
    );
}

#[test]
fn a_key_log_is_never_without_a_word() {
    let checked = run(&with("key_log = \"keys\"")).unwrap();
    assert_eq!(checked.config.ike.key_log.as_deref(), Some(Path::new("keys")));
    let [warning] = &checked.config.warnings[..] else { panic!("{:?}", checked.config.warnings) };
    assert!(warning.starts_with("px.toml:2: KEYS ARE WRITTEN DOWN: whoever can read keys "), "{warning}");
    assert_eq!(
        lines(&format!("[ike]\n{TARGET}")),
        ["1: [ike] does nothing here: this node owns no VIP (routers negotiate; it belongs into their configuration)"],
        "on a target"
    );
}
