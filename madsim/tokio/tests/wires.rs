//! The simulated wires do to a driver what real ones do.

use madsim::{Config, runtime::Runtime};
use std::{future::Future, io::ErrorKind, net::IpAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, Wires, break_off, deny, reset, silence},
    task::JoinSet,
    time::{sleep, timeout},
};

const SEEDS: u64 = 20;
const HERE: &str = "10.0.0.1";
const THERE: &str = "10.0.0.2";
/// Long beside anything that happens here.
const LONG: Duration = Duration::from_secs(10);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs a story with both ends of a connection, for some seeds.
fn story<F: Future<Output = ()> + Send + 'static>(tell: fn(TcpStream, TcpStream) -> F) {
    for seed in 0..SEEDS {
        // The standard library's randomness is madsim's in a thread of its own.
        let run = move || {
            let runtime = Runtime::with_seed_and_config(seed, Config::default());
            runtime.add_simulator::<Wires>();
            let there = runtime.create_node().ip(ip(THERE)).build();
            let here = runtime.create_node().ip(ip(HERE)).build();
            let accepts = there.spawn(async {
                let listener = TcpListener::bind("10.0.0.2:1").await.unwrap();
                listener.accept().await.unwrap().0
            });
            let told = here.spawn(async move {
                sleep(Duration::from_millis(10)).await;
                let mut near = TcpStream::connect("10.0.0.2:1").await.unwrap();
                let mut far = accepts.await.unwrap();
                near.write_all(b"!").await.unwrap();
                assert_eq!(far.read_u8().await.unwrap(), b'!');
                tell(near, far).await;
            });
            runtime.block_on(told).unwrap();
        };
        std::thread::spawn(run).join().unwrap();
    }
}

/// Bytes that are not the same anywhere near.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}

async fn kind_of_read(stream: &mut TcpStream) -> Option<ErrorKind> {
    let read = timeout(LONG, stream.read_u8()).await.ok()?;
    Some(read.expect_err("nothing was written").kind())
}

#[test]
fn bytes_arrive_in_order_and_in_pieces() {
    story(|mut near, mut far| async move {
        let sent = bytes(300_000);
        let expected = sent.clone();
        let mut writing = JoinSet::new();
        writing.spawn(async move { near.write_all(&sent).await.map(|()| near) });
        let (mut found, mut pieces) = (Vec::new(), 0);
        while found.len() < expected.len() {
            assert!(far.read_buf(&mut found).await.unwrap() > 0);
            pieces += 1;
        }
        assert!(found == expected && pieces > 2, "{pieces} pieces");
        writing.join_next().await.unwrap().unwrap().unwrap();
    });
}

#[test]
fn a_writer_waits_for_who_does_not_read() {
    story(|mut near, mut far| async move {
        let sent = bytes(1 << 20);
        let written = timeout(LONG, near.write_all(&sent)).await;
        assert!(written.is_err(), "a window is less than that");
        let mut found = vec![0; 4 << 10];
        far.read_exact(&mut found).await.unwrap();
        assert_eq!(found, bytes(4 << 10));
        let more = timeout(LONG, near.write(&sent)).await;
        assert!(more.is_ok(), "there is room again");
    });
}

#[test]
fn a_reset_is_heard_at_both_ends() {
    story(|mut near, mut far| async move {
        assert_eq!(reset(ip(THERE), ip(HERE)), 1);
        assert_eq!(kind_of_read(&mut near).await, Some(ErrorKind::ConnectionReset));
        let error = far.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn one_end_may_hear_nothing_of_a_reset() {
    story(|mut near, mut far| async move {
        assert_eq!(break_off(ip(HERE), ip(THERE)), 1);
        assert_eq!(kind_of_read(&mut near).await, Some(ErrorKind::ConnectionReset));
        drop(near);
        far.write_all(b"to nobody").await.unwrap();
        assert_eq!(kind_of_read(&mut far).await, None);
        assert_eq!(reset(ip(HERE), ip(THERE)), 1);
        assert_eq!(kind_of_read(&mut far).await, Some(ErrorKind::ConnectionReset));
    });
}

#[test]
fn a_machine_without_power_says_nothing_until_it_is_back() {
    story(|near, mut far| async move {
        silence(ip(HERE));
        drop(near);
        assert_eq!(kind_of_read(&mut far).await, None);
        deny(ip(HERE));
        assert_eq!(kind_of_read(&mut far).await, Some(ErrorKind::ConnectionReset));
    });
}

#[test]
fn who_goes_in_peace_is_read_to_the_end() {
    story(|mut near, mut far| async move {
        near.write_all(b"last words").await.unwrap();
        drop(near);
        let mut found = Vec::new();
        far.read_to_end(&mut found).await.unwrap();
        assert_eq!(found, b"last words");
    });
}
