//! What threads share, in every interleaving that the memory model allows:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p phalanx-ipsec --test loom`
#![cfg(loom)]

use loom::sync::Arc;
use loom::thread;
use phalanx_ipsec::{Grant, GrantCell, ReplayWindow, Role};

fn numbers(cell: &GrantCell, n: u32, times: u32) -> Vec<u64> {
    let mut mine = vec![];
    for _ in 0..times {
        if let Some(mut lease) = cell.take(n) {
            mine.extend(std::iter::from_fn(|| lease.take()).map(|seq| seq.value()));
        }
    }
    mine
}

#[test]
fn cores_never_share_a_number_and_never_get_one_beyond_the_end() {
    loom::model(|| {
        let cell = Arc::new(GrantCell::new(Grant::new(5, 10)));
        let others: Vec<_> = [3, 4]
            .map(|n| {
                let cell = cell.clone();
                thread::spawn(move || numbers(&cell, n, 1))
            })
            .into();
        let mut all = numbers(&cell, 2, 2);
        for other in others {
            all.extend(other.join().unwrap());
        }
        all.sort_unstable();
        // 2 * 2 + 3 + 4 were asked for, 5 are there: all are given out, each once.
        assert_eq!(all, [5, 6, 7, 8, 9]);
        assert!(cell.take(1).is_none());
    });
}

#[test]
fn a_new_cell_takes_over_from_an_exhausted_one_without_overlap() {
    loom::model(|| {
        let cells = Arc::new([GrantCell::new(Grant::new(1, 3)), GrantCell::new(Grant::new(3, 5))]);
        let take = |cells: &[GrantCell; 2]| {
            let lease = cells[0].take(2).or_else(|| cells[1].take(2));
            lease.map(|lease| (lease.first(), lease.end()))
        };
        let other = {
            let cells = cells.clone();
            thread::spawn(move || take(&cells))
        };
        let mut got = [take(&cells), other.join().unwrap()];
        got.sort_unstable();
        assert_eq!(got, [Some((1, 3)), Some((3, 5))]);
    });
}

/// What a reader sees beside a window of 1 and 3 that goes on: that, or these words once it is at 259.
fn a_reader_sees(after: u64, go_on: fn(&mut ReplayWindow)) {
    loom::model(move || {
        // 4 words of 64: 1 and 257 share a word of the ring.
        let mut window = ReplayWindow::new(32, true);
        window.commit(1).unwrap();
        window.commit(3).unwrap();
        let shared = window.shared().clone();
        let reader = thread::spawn(move || shared.of(Role::Target).snapshot());
        go_on(&mut window);
        let snapshot = reader.join().unwrap();
        match snapshot.edge {
            3 => assert_eq!(snapshot.words, [0b1010]),
            259 => assert_eq!(snapshot.words, [after]),
            edge => panic!("edge {edge}"),
        }
    });
}

#[test]
fn a_snapshot_taken_while_a_row_is_committed_holds_all_of_it_or_nothing() {
    a_reader_sees(0b1110, |window| assert!(window.commit_row(257, 3)));
}

#[test]
fn a_snapshot_taken_while_the_window_moves_holds_nothing_that_was_not_accepted() {
    a_reader_sees(0b1000, |window| window.commit(259).unwrap());
}
