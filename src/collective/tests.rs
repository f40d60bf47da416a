//! Ranks as threads: whole messages in order, everybody's error, and no hang.

use super::*;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

fn soon(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

/// Runs `act` as each rank of a job, each in a thread; returns what each returned.
fn job<T: Send>(world: u32, act: impl Fn(&dyn Collective) -> T + Sync) -> Vec<T> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        let (act, listener) = (&act, &listener);
        let threads: Vec<_> = (0..world)
            .map(|rank| scope.spawn(move || act(&joined(listener, address, rank, world))))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn joined(listener: &TcpListener, address: SocketAddr, rank: u32, world: u32) -> Tcp {
    match rank {
        0 => Tcp::listen(listener, world, "job", soon(20_000)).unwrap(),
        _ => Tcp::connect(address, rank, world, "job", soon(20_000)).unwrap(),
    }
}

#[test]
fn messages_arrive_whole_and_in_order() {
    for world in [1, 2, 5, 17] {
        job(world, |ranks| {
            for round in 0..4_u32 {
                let len = [0, 1, 3000, 3 << 20][round as usize];
                let own = vec![(ranks.rank() + round) as u8; len];
                let all = ranks.gather(&own, soon(20_000)).unwrap();
                assert_eq!(all.is_some(), ranks.rank() == 0);
                for (rank, bytes) in all.iter().flatten().enumerate() {
                    assert!(*bytes == vec![rank as u8 + round as u8; len], "{rank} in {round}");
                }
                let sent = all.map(|all| frame::list(&all));
                let heard = ranks.broadcast(sent.as_deref(), soon(20_000)).unwrap();
                assert_eq!(frame::items(&heard).unwrap().len(), world as usize);
            }
        });
    }
}

#[test]
fn one_ranks_error_is_everybodys_with_its_words() {
    let errors = job(5, |ranks| {
        let all = agree(ranks, Ok(vec![ranks.rank() as u8]), soon(20_000)).unwrap();
        assert_eq!(all, [[0], [1], [2], [3], [4]]);
        let full = || Error::new(ErrorKind::NoSpace, "the disk is full").in_object("shard 3");
        let outcome = if ranks.rank() == 3 { Err(full()) } else { Ok(vec![]) };
        let error = agree(ranks, outcome, soon(20_000)).unwrap_err();
        // The job goes on.
        agree(ranks, Ok(vec![]), soon(20_000)).unwrap();
        error
    });
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        assert!(error.to_string().contains("rank 3 of 5: shard 3: the disk is full"), "{error}");
    }
}

#[test]
fn a_rank_that_dies_is_named_on_every_other() {
    let outcomes = job(4, |ranks| {
        if ranks.rank() == 2 {
            return None;
        }
        let started = Instant::now();
        let first = agree(ranks, Ok(vec![]), soon(20_000)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(15), "an end is seen at once");
        let again = ranks.gather(&[], soon(20_000)).unwrap_err();
        Some((first.to_string(), again.to_string()))
    });
    for (first, again) in outcomes.into_iter().flatten() {
        assert!(first.contains("rank 2"), "{first}");
        assert!(again.contains("failed before") && again.contains("rank 2"), "{again}");
    }
}

#[test]
fn late_ranks_are_all_named_at_the_deadline() {
    let outcomes = job(5, |ranks| {
        if matches!(ranks.rank(), 1 | 3) {
            std::thread::sleep(Duration::from_millis(1500));
            return ranks.gather(&[], soon(5000)).and_then(|_| ranks.broadcast(None, soon(5000))).map(drop);
        }
        let started = Instant::now();
        let result = agree(ranks, Ok(vec![]), soon(300)).map(drop);
        assert!(started.elapsed() < Duration::from_millis(1400), "{:?}", started.elapsed());
        result
    });
    let root = outcomes[0].as_ref().unwrap_err().to_string();
    assert!(root.contains("rank 1, 3"), "{root}");
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
}

#[test]
fn a_rank_that_is_one_call_ahead_is_told_apart() {
    let outcomes = job(3, |ranks| {
        if ranks.rank() == 1 {
            ranks.gather(&[1], soon(5000))?;
            ranks.gather(&[2], soon(5000))?;
            return ranks.broadcast(None, soon(5000)).map(drop);
        }
        agree(ranks, Ok(vec![]), soon(5000)).map(drop)?;
        ranks.broadcast((ranks.rank() == 0).then_some(&[][..]), soon(5000)).map(drop)?;
        agree(ranks, Ok(vec![]), soon(5000)).map(drop)
    });
    let text: Vec<String> = outcomes.iter().map(|outcome| format!("{outcome:?}")).collect();
    assert!(outcomes.iter().all(Result::is_err), "{text:?}");
    assert!(text.iter().any(|text| text.contains("another call")), "{text:?}");
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
