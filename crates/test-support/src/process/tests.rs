use super::*;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_command_returns_what_it_printed() {
    assert_eq!(
        run(Command::new("sh").args(["-c", "echo out; echo err >&2"]), SOON).unwrap(),
        "out\n"
    );
}

#[test]
fn a_failing_command_shows_its_line_status_and_output() {
    let error = run(Command::new("sh").args(["-c", "echo because >&2; exit 3"]), SOON)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("sh -c echo because")
            && error.contains("exit status: 3")
            && error.ends_with("because"),
        "{error}"
    );
}

#[test]
fn a_command_that_hangs_is_killed_with_what_it_started() {
    let error = run(
        Command::new("sh").args(["-c", "sleep 600 & wait"]),
        Duration::from_millis(50),
    )
    .unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

#[test]
fn a_started_process_is_seen_alive_and_gone() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().canonicalize().unwrap();
    let log = home.join("log");
    let started = spawn(
        Command::new("sh")
            .args(["-c", "echo hello; exec sleep 600"])
            .current_dir(&home),
        &log,
    )
    .unwrap();
    started.still_runs().unwrap();
    let identity = Identity::of(started.pid).unwrap();
    assert!(identity.is_alive());
    wait::eventually("its first line", SOON, || {
        fs::read_to_string(&log).ok().filter(|text| text == "hello\n")
    });

    signal(started.pid, Signal::KILL);
    let error = wait::eventually("its end", SOON, || started.still_runs().err()).to_string();
    assert!(
        error.contains("sleep 600") && error.contains("signal: 9") && error.ends_with("hello"),
        "{error}"
    );
    assert!(!is_alive(started.pid) && !identity.is_alive());
}

#[test]
fn children_and_grandchildren_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let script = "sh -c 'sleep 600; :' & wait";
    let started = spawn(
        Command::new("sh").args(["-c", script]),
        &folder.path().join("log"),
    )
    .unwrap();
    let found = wait::eventually("a grandchild", SOON, || {
        Some(descendants(started.pid)).filter(|all| all.len() == 2)
    });
    assert_eq!(children(started.pid), found[..1]);
    signal_group(started.pid, Signal::KILL);
    wait::eventually("the group to end", SOON, || {
        found.iter().all(|pid| !is_alive(*pid)).then_some(())
    });
}

#[test]
fn a_name_with_blanks_and_brackets_does_not_confuse_the_parser() {
    let stat =
        parse_stat("42 (a) Z 7 (b)) S 17 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 777 23").unwrap();
    assert_eq!(
        (stat.state, stat.parent, stat.threads, stat.started),
        ('S', 17, 20, 777)
    );
    assert!(parse_stat("garbage").is_none());
}

#[test]
fn an_identity_survives_being_written_down_and_differs_from_a_recycled_number() {
    let ours = Identity::of(rustix::process::getpid()).unwrap();
    let read = Identity::parse(&ours.to_string()).unwrap();
    assert!(read == ours && read.is_alive());
    let recycled = Identity {
        started: ours.started + 1,
        ..ours
    };
    assert!(!recycled.is_alive());
    assert_eq!(Identity::parse("12"), None);
}

#[test]
fn only_the_end_of_a_long_log_is_shown() {
    let text = (0..100).map(|n| n.to_string()).collect::<Vec<_>>().join("\n");
    let tail = tail(&text);
    assert!(tail.starts_with("70\n") && tail.ends_with("\n99"), "{tail}");
}
