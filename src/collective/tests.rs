//! Who joins a job by TCP, and bytes that lie. What holds for every collective is in
//! `testing/collective_suite.rs`.

use super::*;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn soon(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

#[test]
fn missing_ranks_and_strangers_do_not_join() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let root = scope.spawn(|| Tcp::listen(&listener, 4, "job", soon(1500)).map(drop));
        // Who says nothing, and who speaks another protocol.
        let silent = TcpStream::connect(address).unwrap();
        drop(silent);
        let mut http = TcpStream::connect(address).unwrap();
        std::io::Write::write_all(&mut http, b"GET / HTTP/1.1\r\nHost: rank-0 of some job\r\n\r\n").unwrap();
        let join = |rank, world, job| Tcp::connect(address, rank, world, job, soon(1200)).map(drop);
        let one = scope.spawn(move || join(1, 4, "job"));
        std::thread::sleep(Duration::from_millis(200));
        for (rank, world, job, words) in
            [(1, 4, "job", "plays rank 1"), (2, 4, "other", "another start"), (2, 5, "job", "job of 4")]
        {
            let error = join(rank, world, job).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced);
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = root.join().unwrap().unwrap_err().to_string();
        assert!(error.contains("rank 2, 3"), "{error}");
        assert!(one.join().unwrap().is_err());
    });
    assert!(Tcp::listen(&listener, 0, "job", soon(10)).is_err());
    assert!(Tcp::connect(address, 4, 4, "job", soon(10)).is_err());
    assert!(Tcp::connect(address, 0, 4, "job", soon(10)).is_err());
    drop(listener);
    let error = Tcp::connect(address, 1, 2, "job", soon(100)).map(drop).unwrap_err();
    assert!(error.to_string().contains("rank 0"), "{error}");
}

#[test]
fn a_job_of_one_rank_needs_nobody() {
    assert_eq!((Alone.rank(), Alone.world()), (0, 1));
    assert_eq!(agree(&Alone, Ok(vec![7]), Instant::now()).unwrap(), [[7]]);
    assert!(Alone.broadcast(None, Instant::now()).is_err());
}

#[test]
fn messages_that_lie_are_errors() {
    for bytes in [&[][..], &[2], &[0, 0xFF, 0xFE]] {
        assert!(frame::result(bytes).is_err());
    }
    assert!(frame::items(&[1, 0, 0]).is_err());
    assert!(frame::items(&u64::MAX.to_le_bytes()).is_err());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut receiver, _) = listener.accept().unwrap();
    let mut head = [0; 28];
    head[0..4].copy_from_slice(b"TKPC");
    head[16..24].copy_from_slice(&(1_u64 << 29).to_le_bytes());
    std::io::Write::write_all(&mut sender, &head).unwrap();
    drop(sender);
    // Half a gibibyte is announced and does not come.
    let error = frame::receive(&mut receiver, u64::MAX, soon(5000)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
}
