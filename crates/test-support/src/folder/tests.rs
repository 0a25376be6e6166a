use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A server that ends on SIGQUIT as they all do, recorded the way a daemon records itself.
fn sleeper(folder: &Folder, name: &str) -> Pid {
    let data = folder.root().join("data").join(name);
    fs::create_dir(&data).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec sleep 600"]).current_dir(&data);
    let started = process::spawn(&mut command, &folder.logs().join(name)).unwrap();
    record(folder.root(), name, started.pid).unwrap();
    started.pid
}

#[test]
fn a_dropped_folder_takes_its_servers_with_it_even_frozen_ones() {
    let folder = Folder::create(Lifetime::Owner).unwrap();
    let root = folder.root().to_owned();
    let pids = [sleeper(&folder, "a"), sleeper(&folder, "b")];
    process::signal(pids[1], Signal::STOP);
    drop(folder);
    assert!(pids.iter().all(|pid| !process::is_alive(*pid)));
    assert!(!root.exists());
}

#[test]
fn kept_logs_are_all_that_stays() {
    let folder = Folder::create(Lifetime::Owner).unwrap();
    let root = folder.root().to_owned();
    sleeper(&folder, "a");
    folder.keep_logs();
    drop(folder);
    let left: Vec<_> = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["log"]);
    remove(&root).unwrap();
}

#[test]
fn a_detached_folder_stays_until_it_is_torn_down_and_twice_is_no_harm() {
    let folder = Folder::create(Lifetime::Detached).unwrap();
    let root = folder.root().to_owned();
    let pid = sleeper(&folder, "a");
    drop(folder);
    assert!(process::is_alive(pid) && recorded(&root, "a") == Some(pid));
    teardown(&root, false).unwrap();
    assert!(!process::is_alive(pid) && !root.exists());
    teardown(&root, false).unwrap();
}

#[test]
fn a_recycled_process_id_is_never_signalled() {
    let folder = Folder::create(Lifetime::Owner).unwrap();
    let stranger = tempfile::tempdir().unwrap();
    let mut command = Command::new("sleep");
    let other = process::spawn(
        command.arg("600").current_dir(stranger.path()),
        &stranger.path().join("log"),
    )
    .unwrap();
    // The number is alive, the start time is another process'.
    fs::write(
        folder.root().join("run/a.pid"),
        format!("{} 1", other.pid.as_raw_nonzero()),
    )
    .unwrap();
    assert_eq!(recorded(folder.root(), "a"), None);
    drop(folder);
    other.still_runs().unwrap();
    process::signal(other.pid, Signal::KILL);
}

#[test]
fn the_watchdog_ends_the_servers_of_an_owner_that_vanished() {
    let mut folder = Folder::create(Lifetime::Owner).unwrap();
    let root = folder.root().to_owned();
    let pid = sleeper(&folder, "a");
    let mut watchdog = folder.watchdog.take().unwrap();
    // A killed owner runs no destructor; all that happens is that its end of the pipe closes.
    folder.lifetime = Lifetime::Detached;
    drop(watchdog.pipe.take());
    wait::eventually("the watchdog to clean up", SOON, || {
        (!root.exists() && !process::is_alive(pid)).then_some(())
    });
}
