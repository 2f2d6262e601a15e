//! Many at once: exactly one wins, and nobody sees half of it.

use futures_util::future::join_all;
use slice_load::Client;
use slice_proto::nfs3::{CreateHow, NfsStat3};
use slice_tests::wire::stage::{create, mkdir, names};
use slice_tests::wire::{Expect, Stage, mode};

crate::claims![
    one_of_many_creates_a_name,
    one_of_many_removes_a_name,
    one_of_many_takes_a_name_by_rename,
    rmdir_and_create_never_both_win,
    two_moves_never_make_a_loop,
    concurrent_links_are_all_counted,
    concurrent_creates_in_one_directory_all_stand,
    crossing_renames_lose_nothing,
];

const MANY: usize = 8;

async fn clients(s: &Stage) -> Vec<Client> {
    join_all((0..MANY).map(|_| s.connect())).await
}

fn count(all: &[NfsStat3], status: NfsStat3) -> usize {
    all.iter().filter(|s| **s == status).count()
}

async fn one_of_many_creates_a_name(s: Stage) {
    let all = clients(&s).await;
    for round in 0..6 {
        let name = format!("f{round}");
        let how = CreateHow::Guarded(mode(0o644));
        let won =
            join_all(all.iter().map(async |c| c.create(&s.dir, name.as_bytes(), how).await.stat())).await;
        assert_eq!((count(&won, NfsStat3::OK), count(&won, NfsStat3::EXIST)), (1, MANY - 1), "{won:?}");
        let name = format!("d{round}");
        let won =
            join_all(all.iter().map(async |c| c.mkdir(&s.dir, name.as_bytes(), mode(0o755)).await.stat()))
                .await;
        assert_eq!((count(&won, NfsStat3::OK), count(&won, NfsStat3::EXIST)), (1, MANY - 1), "{won:?}");
    }
    assert_eq!(names(&s.c, &s.dir).await.len(), 12);
    assert_eq!(s.attr(&s.dir).await.nlink, 2 + 6);
}

async fn one_of_many_removes_a_name(s: Stage) {
    let all = clients(&s).await;
    for round in 0..6 {
        let (file, dir) = (format!("f{round}"), format!("d{round}"));
        s.file(&file).await;
        s.subdir(&dir).await;
        let won = join_all(all.iter().map(async |c| c.remove(&s.dir, file.as_bytes()).await.stat())).await;
        assert_eq!((count(&won, NfsStat3::OK), count(&won, NfsStat3::NOENT)), (1, MANY - 1), "{won:?}");
        let won = join_all(all.iter().map(async |c| c.rmdir(&s.dir, dir.as_bytes()).await.stat())).await;
        assert_eq!((count(&won, NfsStat3::OK), count(&won, NfsStat3::NOENT)), (1, MANY - 1), "{won:?}");
    }
    assert_eq!((names(&s.c, &s.dir).await.len(), s.attr(&s.dir).await.nlink), (0, 2));
}

async fn one_of_many_takes_a_name_by_rename(s: Stage) {
    let all = clients(&s).await;
    for round in 0..6 {
        let name = format!("f{round}");
        let file = s.file(&name).await;
        let moves = all.iter().enumerate().map(async |(i, c)| {
            let to = format!("to-{round}-{i}");
            c.rename((&s.dir, name.as_bytes()), (&s.dir, to.as_bytes())).await.stat()
        });
        let won = join_all(moves).await;
        assert_eq!((count(&won, NfsStat3::OK), count(&won, NfsStat3::NOENT)), (1, MANY - 1), "{won:?}");
        assert_eq!(s.attr(&file).await.nlink, 1);
    }
    assert_eq!(names(&s.c, &s.dir).await.len(), 6);
}

async fn rmdir_and_create_never_both_win(s: Stage) {
    let all = clients(&s).await;
    for round in 0..12 {
        let name = format!("d{round}");
        let dir = s.subdir(&name).await;
        let creates = all[1..].iter().enumerate().map(async |(i, c)| {
            let how = CreateHow::Guarded(mode(0o644));
            c.create(&dir, format!("f{i}").as_bytes(), how).await.stat()
        });
        let (made, gone) = futures_util::join!(join_all(creates), all[0].rmdir(&s.dir, name.as_bytes()));
        if gone.stat() == NfsStat3::OK {
            let lost = count(&made, NfsStat3::STALE) + count(&made, NfsStat3::NOENT);
            assert_eq!(lost, made.len(), "the directory is gone, yet {made:?}");
            s.c.getattr(&dir).await.fails(NfsStat3::STALE);
        } else {
            gone.fails(NfsStat3::NOTEMPTY);
            let stand = names(&s.c, &dir).await.len();
            assert_eq!(stand, count(&made, NfsStat3::OK));
            assert!(stand > 0, "refused as not empty, and nothing is in it");
        }
    }
}

async fn two_moves_never_make_a_loop(s: Stage) {
    let all = clients(&s).await;
    for round in 0..12 {
        let (na, nb) = (format!("a{round}"), format!("b{round}"));
        let (a, b) = (s.subdir(&na).await, s.subdir(&nb).await);
        let (one, other) = futures_util::join!(
            all[0].rename((&s.dir, na.as_bytes()), (&b, b"x")),
            all[1].rename((&s.dir, nb.as_bytes()), (&a, b"x")),
        );
        let both = [one.stat(), other.stat()];
        assert_eq!(count(&both, NfsStat3::OK), 1, "{both:?}");
        let (moved, into) = if both[0] == NfsStat3::OK { (a, b) } else { (b, a) };
        assert_eq!(s.c.lookup(&moved, b"..").await.good().object, into);
        assert_eq!(s.c.lookup(&into, b"..").await.good().object, s.dir);
    }
}

async fn concurrent_links_are_all_counted(s: Stage) {
    let all = clients(&s).await;
    let file = s.file("f").await;
    let dirs = [s.subdir("a").await, s.subdir("b").await];
    for round in 0..5 {
        let links = all.iter().enumerate().map(async |(i, c)| {
            c.link(&file, &dirs[i % 2], format!("l{round}-{i}").as_bytes()).await.good();
        });
        join_all(links).await;
        assert_eq!(s.attr(&file).await.nlink as usize, 1 + MANY);
        let unlinks = all.iter().enumerate().map(async |(i, c)| {
            c.remove(&dirs[i % 2], format!("l{round}-{i}").as_bytes()).await.good();
        });
        join_all(unlinks).await;
        assert_eq!(s.attr(&file).await.nlink, 1);
    }
}

async fn concurrent_creates_in_one_directory_all_stand(s: Stage) {
    const EACH: usize = 25;
    let all = clients(&s).await;
    let work = all.iter().enumerate().map(async |(who, c)| {
        for i in 0..EACH {
            create(c, &s.dir, &format!("f{who}-{i}"), 0o644).await;
            mkdir(c, &s.dir, &format!("d{who}-{i}"), 0o755).await;
            if i % 2 == 0 {
                c.remove(&s.dir, format!("f{who}-{i}").as_bytes()).await.good();
                c.rmdir(&s.dir, format!("d{who}-{i}").as_bytes()).await.good();
            }
        }
    });
    join_all(work).await;
    let left = names(&s.c, &s.dir).await;
    assert_eq!(left.len(), 2 * MANY * (EACH / 2));
    assert_eq!(s.attr(&s.dir).await.nlink as usize, 2 + MANY * (EACH / 2));
}

/// Everyone moves everyone's files to and fro between two directories: as many files as before, each with one name.
async fn crossing_renames_lose_nothing(s: Stage) {
    let all = clients(&s).await;
    let dirs = [s.subdir("a").await, s.subdir("b").await];
    let mut files = Vec::new();
    for i in 0..MANY {
        files.push(create(&s.c, &dirs[i % 2], &format!("f{i}"), 0o644).await);
    }
    let work = all.iter().enumerate().map(async |(who, c)| {
        for step in 0..20 {
            let name = format!("f{}", (who * 3 + step * 5) % MANY);
            let (from, to) = (&dirs[(who + step) % 2], &dirs[(who + step + 1) % 2]);
            let moved = c.rename((from, name.as_bytes()), (to, name.as_bytes())).await.stat();
            assert!([NfsStat3::OK, NfsStat3::NOENT].contains(&moved), "{moved}");
        }
    });
    join_all(work).await;
    let mut left = names(&s.c, &dirs[0]).await;
    left.extend(names(&s.c, &dirs[1]).await);
    left.sort();
    let want: Vec<_> = (0..MANY).map(|i| format!("f{i}").into_bytes()).collect();
    assert_eq!(left, want);
    for file in &files {
        assert_eq!(s.attr(file).await.nlink, 1);
    }
}
