//! `lakebed snapshot`, `backup` and `restore` as their user meets them: out of a running cluster,
//! into a new one, and everything that can be wrong with files and directories.

use crate::{
    cluster::Cluster,
    common::{
        Patient, Process, Scratch, done, eventually, fails, json, lakebed, local, output,
        output_of, text,
    },
    lone::Lone,
    ports::ports,
    room::finds_no_room,
};
use rustix::process::{Signal, kill_process};
use serde_json::Value;
use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead, BufReader, ErrorKind, Write},
    net::TcpListener,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, UNIX_EPOCH},
};

/// Three nodes to be, of a cluster that has no name but its members.
struct Planned {
    peers: u16,
    clients: u16,
}

impl Planned {
    fn new() -> Self {
        Self { peers: ports(3), clients: ports(3) }
    }

    fn peers(&self) -> String {
        let peer = |n| format!("{}=127.0.0.1:{}", n + 1, self.peers + n);
        (0..3).map(peer).collect::<Vec<_>>().join(",")
    }

    fn serve(&self, n: u16, dir: &Path) -> Process {
        let (listen, resp) = (local(self.peers + n), local(self.clients + n));
        let (id, peers) = ((n + 1).to_string(), self.peers());
        let flags = ["serve", "--id", &id, "--dir", text(dir), "--peers", &peers];
        let more = ["--listen", &listen, "--resp", &resp, "--heartbeat-ms", "40"];
        let more = [&more[..], &["--election-ms", "200"]].concat();
        Process::start(&mut lakebed(&[&flags[..], &more].concat()))
    }
}

#[test]
fn a_backup_of_any_node_becomes_a_new_cluster() {
    let old = Cluster::start(Scratch::new(), &[], |command| command);
    let scratch = Scratch::new();
    for n in 0..300_u64 {
        let (key, value) = (format!("key-{n}"), format!("{n}-{}", "x".repeat(2000)));
        old.node(n).ask::<String>(&["SET", &key, &value]);
    }
    let taken = json(&["snapshot", &local(old.clients + 1)]);
    assert!(taken["index"].as_u64().unwrap() >= 300, "{taken}");
    let digest: (u64, String) = old.node(0).ask(&["LAKEBED", "DIGEST"]);
    let backups: Vec<_> = (0..3).map(|n| scratch.path().join(format!("backup-{n}"))).collect();
    let told: Vec<_> = (0..3)
        .map(|n: u16| {
            let file = &backups[usize::from(n)];
            let told = json(&["backup", &local(old.clients + n), text(file)]);
            assert_eq!(told["bytes"], fs::metadata(file).unwrap().len());
            assert_eq!((&told["node"], &told["is_fresh"]), (&(n + 1).into(), &true.into()));
            told
        })
        .collect();
    // How late it was by the log, in the right year.
    let verified = json(&["verify", text(&backups[1])]);
    let nanos: u64 = verified["backup"][0]["unix_ns"].as_str().unwrap().parse().unwrap();
    let now = UNIX_EPOCH.elapsed().unwrap();
    assert!(now - Duration::from_nanos(nanos) < Duration::from_mins(10), "{verified}");
    let shown = done(&["verify", text(&backups[1])]);
    let day = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_nanos(nanos));
    assert!(shown.contains(&format!(" of {day}: nothing is wrong")), "{shown}");
    // The same state everywhere, to the last byte.
    assert!(told.iter().all(|one| one["digest"] == told[0]["digest"]), "{told:?}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 3, "no part is left");

    let new = Planned::new();
    let dirs: Vec<PathBuf> = (0..3).map(|n| scratch.path().join(format!("new/{n}"))).collect();
    for (dir, id) in dirs.iter().zip(["1", "2", "3"]) {
        let peers = new.peers();
        let args = ["restore", text(&backups[1]), "--dir", text(dir), "--id", id];
        let of = told[1]["cluster"].as_str().unwrap().to_owned();
        let made = json(&[&args[..], &["--peers", &peers, "--of", &of]].concat());
        assert_eq!((&made["index"], &made["digest"]), (&told[1]["index"], &told[1]["digest"]));
        assert_ne!(made["cluster"], made["from_cluster"]);
        assert!(output(&["verify", text(dir)]).status.success());
    }
    let nodes: Vec<_> = (0..3).map(|n| new.serve(n, &dirs[usize::from(n)])).collect();
    nodes.iter().for_each(|node| drop(node.says("ready")));
    for n in 0..3 {
        let mut node = Patient::new(new.clients + n);
        assert_eq!(node.ask::<(u64, String)>(&["LAKEBED", "DIGEST"]).1, digest.1);
        assert!(node.ask::<String>(&["GET", "key-299"]).starts_with("299-xxx"));
    }
    Patient::new(new.clients).ask::<String>(&["SET", "key-new", "1"]);
    let again = json(&["snapshot", &local(new.clients)]);
    assert!(again["term"].as_u64() > taken["term"].as_u64(), "terms go on: {again}");
    assert!(again["index"].as_u64() > taken["index"].as_u64(), "and so do indices: {again}");
    assert_eq!(old.node(0).ask::<u64>(&["EXISTS", "key-new"]), 0);
}

#[test]
fn members_of_different_backups_say_so_and_end() {
    let (lone, scratch, new) = (Lone::new(), Scratch::new(), Planned::new());
    let node = lone.start();
    node.says("ready");
    let backups = ["one", "other"].map(|name| scratch.path().join(name));
    for backup in &backups {
        Patient::new(lone.clients).ask::<String>(&["SET", "key", "value"]);
        json(&["backup", &local(lone.clients), text(backup)]);
    }
    let dirs: Vec<PathBuf> = (0..3).map(|n| scratch.path().join(format!("{n}"))).collect();
    for (n, backup) in [(0, 0), (1, 1), (2, 0)] {
        let (id, peers) = ((n + 1).to_string(), new.peers());
        let args = ["restore", text(&backups[backup]), "--dir", text(&dirs[n]), "--id", &id];
        json(&[&args[..], &["--peers", &peers]].concat());
    }
    let mut meeting = [(new.serve(1, &dirs[1]), 1), (new.serve(0, &dirs[0]), 2)];
    // Whoever hears of the other first ends, and may be gone before the other hears as much.
    eventually("one of them ends", || meeting.iter_mut().any(|(node, _)| node.has_ended()));
    let (mut first, peer) = meeting
        .into_iter()
        .find_map(|(mut node, peer)| node.has_ended().then_some((node, peer)))
        .unwrap();
    assert_eq!(first.ended().code(), Some(1));
    let told = first.errors();
    assert!(told.contains(&format!("and node {peer} with snapshot")), "{told}");
    assert!(told.contains("made from the same backup"), "{told}");
    // The wrong one is made anew, and all is well.
    fs::remove_dir_all(&dirs[1]).unwrap();
    let peers = new.peers();
    let args = ["restore", text(&backups[0]), "--dir", text(&dirs[1]), "--id", "2"];
    json(&[&args[..], &["--peers", &peers]].concat());
    let nodes: Vec<_> = (0..3).map(|n| new.serve(n, &dirs[usize::from(n)])).collect();
    nodes.iter().for_each(|node| drop(node.says("ready")));
}

/// Something that answers everything with this, and is no node.
fn stranger(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
                if stream.write_all(answer).is_err() {
                    break;
                }
            }
        }
    });
    port
}

#[test]
fn a_backup_that_cannot_be_taken_is_told_with_what_to_do() {
    let (lone, scratch) = (Lone::unborn(), Scratch::new());
    let at = |name: &str| scratch.path().join(name);
    fs::write(at("there"), "precious").unwrap();
    let nobody = local(ports(1));
    fails(&["backup", &nobody, text(&at("there"))], 1, &["there exists already", "another name"]);
    assert_eq!(fs::read_to_string(at("there")).unwrap(), "precious");
    for command in ["backup", "snapshot"] {
        let file = at("new");
        let file: &[&str] = if command == "backup" { &[text(&file)] } else { &[] };
        let ask = |address: &str, expected: &[&str]| {
            fails(&[&[command, address], file].concat(), 1, expected);
        };
        ask(&nobody, &["cannot ask", "does a node serve there?"]);
        ask(&local(stranger(b"+OK\r\n")), &["is no node of lakebed"]);
        // It may be one, and says itself what it wants.
        let refuses = local(stranger(b"-TRYAGAIN too many clients, come back\r\n"));
        ask(&refuses, &[&refuses, "too many clients, come back"]);
    }
    let refuses = local(stranger(b"-TRYAGAIN too many clients, come back\r\n"));
    fails(&["status", &refuses], 1, &[&refuses, "too many clients, come back"]);
    fails(&["status", &local(stranger(b""))], 1, &["it did not answer within 5 s"]);
    let node = lone.start();
    node.says("ready");
    fails(&["backup", &local(lone.clients), text(&at("no/file"))], 1, &["no/file.part"]);
    // A directory is not one of the things that are written over either.
    fails(&["backup", &local(lone.clients), text(scratch.path())], 1, &["exists already"]);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "nothing is left");
}

#[test]
fn a_restore_that_cannot_be_is_told_with_what_to_do() {
    let lone = Lone::that(&[], |connection| {
        for n in 0..100 {
            redis::cmd("SET").arg(n).arg(&[b'x'; 10_000]).exec(connection).unwrap();
        }
    });
    let (scratch, new) = (Scratch::new(), Planned::new());
    let at = |name: &str| scratch.path().join(name);
    let node = lone.start();
    node.says("ready");
    let backup = at("backup");
    let full = ["backup", &local(lone.clients), text(&backup)];
    finds_no_room(&full, 600, &["cannot write", "backup.part"]);
    assert!(!backup.exists() && !at("backup.part").exists());
    json(&["backup", &local(lone.clients), text(&backup)]);

    let whole = fs::read(&backup).unwrap();
    let mut flipped = whole.clone();
    flipped[600_000] ^= 1;
    fs::write(at("flipped"), flipped).unwrap();
    fs::write(at("short"), &whole[..700_000]).unwrap();
    fs::write(at("shorter"), &whole[..whole.len() - 4096]).unwrap();
    fs::write(at("other"), vec![b'#'; 9000]).unwrap();
    fs::create_dir(at("thesis")).unwrap();
    fs::write(at("thesis/chapter.tex"), "years of work").unwrap();
    let peers = new.peers();
    let restore = |file: &str, dir: &Path, more: &[&str], expected: &[&str]| {
        let file = at(file);
        let args = ["restore", text(&file), "--dir", text(dir), "--id", "1", "--peers", &peers];
        fails(&[&args[..], more].concat(), 1, expected);
    };
    let dir = at("new");
    restore("flipped", &dir, &[], &["flipped", "at byte", "block 2", "checksum"]);
    restore("short", &dir, &[], &["short", "cut short"]);
    restore("shorter", &dir, &[], &["shorter", "at byte", "block 3"]);
    restore("other", &dir, &[], &["other", "the header of a backup"]);
    restore("nowhere", &dir, &[], &["nowhere", "No such file"]);
    restore("backup", &dir, &["--of", "7"], &["is a backup of cluster", "not of 7"]);
    restore("backup", &dir, &["--cluster", "here"], &["the very cluster", "another name"]);
    assert!(!dir.exists(), "nothing was made");
    restore("backup", &at("thesis"), &[], &["chapter.tex is in the way", "empty directory"]);
    restore("backup", scratch.path(), &[], &["is in the way"]);
    restore("backup", lone.path(), &[], &["belongs to cluster"]);
    fails(
        &["restore", text(&backup), "--dir", text(&dir), "--id", "4", "--peers", &peers],
        2,
        &["does not name node 4"],
    );

    // Room for the log, and none for the snapshot: then it is as if nothing had been.
    let args = ["restore", text(&backup), "--dir", text(&dir), "--id", "1", "--peers", &peers];
    finds_no_room(&args, 600, &["no room left", "no node yet"]);
    let serve = |dir: &Path| {
        let (listen, resp) = (local(new.peers), local(new.clients));
        let flags = ["serve", "--id", "1", "--dir", text(dir), "--peers", &peers];
        let flags = [&flags[..], &["--listen", &listen, "--resp", &resp]].concat();
        Process::start(&mut lakebed(&flags))
    };
    json(&args);
    fails(&args, 1, &["holds a node already", "start it"]);
    let running = serve(&dir);
    running.says("lakebed: node 1");
    // It says so before it locks it.
    eventually("it is locked", || {
        let complaint = output(&args).stderr;
        String::from_utf8_lossy(&complaint).contains("locked by process")
    });
}

/// The process dies in the middle: what there is starts nothing, and the next try succeeds.
#[test]
fn a_restore_that_was_killed_is_refused_and_repeated() {
    let (lone, scratch) = (Lone::new(), Scratch::new());
    let node = lone.start();
    node.says("ready");
    let (backup, dir) = (scratch.path().join("backup"), scratch.path().join("new"));
    let told = json(&["backup", &local(lone.clients), text(&backup)]);
    let (index, term) = (&told["index"], &told["term"]);
    // What a kill right before the hard state leaves.
    let peers = format!("1=127.0.0.1:{}", ports(1));
    let args = ["restore", text(&backup), "--dir", text(&dir), "--id", "1", "--peers", &peers];
    json(&args);
    fs::remove_file(dir.join("hard-state")).unwrap();
    assert!(dir.join(format!("snapshot-{index}-{term}")).exists());
    let (listen, resp) = (peers.strip_prefix("1=").unwrap(), local(ports(1)));
    let serve = ["serve", "--id", "1", "--dir", text(&dir), "--peers", &peers];
    let serve = [&serve[..], &["--listen", listen, "--resp", &resp]].concat();
    fails(&serve, 1, &["restore-unfinished", "is repeated"]);
    json(&args);
    let node = Process::start(&mut lakebed(&serve));
    node.says("ready");
    let port = resp.rsplit_once(':').unwrap().1.parse().unwrap();
    assert_eq!(Patient::new(port).ask::<String>(&["GET", "key"]), "value");
}

/// What had been done for good ended in a panic, for JSON has no place for such a name.
#[test]
fn names_that_are_no_text_are_told_as_they_are_shown() {
    let (mut cluster, scratch) = (Cluster::start(Scratch::new(), &[], |c| c), Scratch::new());
    cluster.node(0).ask::<String>(&["SET", "key", "value"]);
    let at = |name: &[u8]| scratch.path().join(OsStr::from_bytes(name));
    let [backup, other, new, one, two] =
        [b"backup-\xff", b"others-\xff", b"newest-\xff", b"first--\xff", b"second-\xff"]
            .map(|n| at(n));
    let shown = |path: &Path| Value::from(path.display().to_string());
    let told = |args: &[&str], path: &Path, more: &[&OsStr]| {
        let output = output_of(lakebed(args).arg(path).args(more));
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json = |args: &[&str], path: &Path, more: &[&OsStr]| -> Value {
        serde_json::from_str(&told(&[args, &["--json"]].concat(), path, more)).unwrap()
    };
    let take = ["backup", &local(cluster.clients)];
    assert!(told(&take, &other, &[]).contains("others-\u{fffd}: "));
    assert_eq!(json(&take, &backup, &[])["file"], shown(&backup));
    assert_eq!(json(&["verify"], &backup, &[])["backup"][0]["file"], shown(&backup));
    let peers = Planned::new().peers();
    let who = ["--id", "1", "--peers", &peers, "--dir"].map(OsStr::new);
    let made = json(&["restore"], &backup, &[&who[..], &[new.as_os_str()]].concat());
    assert_eq!(made["dir"], shown(&new));
    assert_eq!(json(&["verify"], &new, &[])["well"], true);

    cluster.kill(0..3);
    let recover = ["recover", "--force", "--yes"];
    fs::rename(cluster.node_dir(0), &one).unwrap();
    assert!(told(&recover, &one, &[]).contains("is the only voter"));
    fs::rename(cluster.node_dir(1), &two).unwrap();
    let done = json(&recover, &two, &[]);
    assert_eq!((&done["dir"], &done["epoch"]), (&shown(&two), &1.into()), "{done}");
}

/// Answers as a node does up to the first piece of a backup; then says so, and nothing any more.
fn half_a_node(listener: &TcpListener, asked: &Sender<()>) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    let (mut answers, mut lines) = (&stream, BufReader::new(&stream).lines());
    let mut line = || lines.next().unwrap_or_else(|| Err(ErrorKind::UnexpectedEof.into()));
    loop {
        // `*2`, and of each word `$4` and the word.
        let count: usize = line()?[1..].parse().map_err(io::Error::other)?;
        let words =
            (0..count).map(|_| line().and_then(|_| line())).collect::<Result<Vec<_>, _>>()?;
        let answer = match words.join(" ").as_str() {
            "INFO" => "$19\r\nlakebed_version:0\r\n\r\n",
            "DBSIZE" => ":0\r\n",
            "LAKEBED SNAPSHOT" => "$3\r\n1.5\r\n",
            "LAKEBED BACKUP BEGIN" => "*2\r\n$12\r\nsnapshot-5-1\r\n:100000\r\n",
            other => {
                assert!(other.starts_with("LAKEBED BACKUP READ "), "{other}");
                asked.send(()).map_err(io::Error::other)?;
                // Until the other end goes.
                line()?;
                ""
            }
        };
        answers.write_all(answer.as_bytes())?;
    }
}

/// What had come of it stayed, under a name of its own: as large as a store may be, and for `restore` of the
/// directory another backup. And whether it ended so or with an error depended on which of its threads heard it: a
/// wait for an answer failed if it was interrupted, also by a stop and its end.
#[test]
fn a_backup_that_is_told_to_end_leaves_nothing() {
    for (signal, heard_by) in
        [(Signal::INT, 0), (Signal::INT, 1), (Signal::TERM, 0), (Signal::TERM, 1)]
    {
        let (scratch, listener) = (Scratch::new(), TcpListener::bind("127.0.0.1:0").unwrap());
        let address = listener.local_addr().unwrap().to_string();
        let (asked, asks) = channel();
        let node = thread::spawn(move || half_a_node(&listener, &asked));
        let file = scratch.path().join("backup");
        let mut backup = Process::start(&mut lakebed(&["backup", &address, text(&file)]));
        asks.recv().unwrap();
        assert!(scratch.path().join("backup.part").exists());
        backup.signal(Signal::STOP);
        eventually("it is stopped", || backup.is_stopped());
        backup.signal(Signal::CONT);
        kill_process(backup.threads()[heard_by], signal).unwrap();
        assert_eq!(backup.ended().code(), Some(130), "{}", backup.errors());
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        assert!(node.join().unwrap().is_err(), "it never says more");
    }
}
