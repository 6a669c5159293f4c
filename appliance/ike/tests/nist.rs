//! NIST's vectors of the IKEv2 key derivation (SP 800-135 §4.1.2).
//!
//! Rows of the CAVS samples "IKE v2" for SHA-256 and SHA-384, g^ir of 256 bits, nonces of 64, 1056 bits of keying material, as
//! Mozilla's NSS carries them (gtests/common/testvectors, "these vectors are from this NIST samples"). SHA-1 is not for us. For
//! SHA-512, and for the CHILD SA, no row could be reached: those are computed with Python's `hmac` from the same inputs.

use phalanx_ike::crypto::{AesBits, Cipher, Exchange, IkeKeys, Integrity, Prf, Secret, child_keys};

struct Row {
    prf: Prf,
    nonce_i: &'static str,
    nonce_r: &'static str,
    shared: &'static str,
    shared_new: &'static str,
    spi_i: &'static str,
    spi_r: &'static str,
    seed: &'static str,
    material: &'static str,
    seed_rekey: &'static str,
    child: &'static str,
    child_shared: &'static str,
}

const ROWS: [Row; 3] = [
    Row {
        prf: Prf::HmacSha256,
        nonce_i: "3f302be1abcb28e1",
        nonce_r: "8c332ee006064c9b",
        shared: "0f4d257d7a58fc4545c7d7a88119eee5d5c9690c5b4c989171d3abbfd99d1d29",
        shared_new: "25f3b12d6f282739256e39bf54eda53b60ffcf379bb7bcc90c27b4c4c578616c",
        spi_i: "40dac39e1e1a8640",
        spi_r: "8619a1cf9a6e4c07",
        seed: "5f00d1bd2c58ec224b1e6b71fa0f19a1faa7a193952c444411b47c1a9d8ba6fe",
        material: "0b137d669b0947d7d026d593f0305ad401ff0c471357d695778a9c7f4b4869ece98aca531188d16041b3bb936d2dbb3b4993\
            a6e768a809160de45d0283f273a6cdf6854379e31be72b8d3d1fa990cf9c5b015ca9f918a7df6253c958114a09d4e1c19bdc\
            d4db14b29d98db1a74ad405c588662c14a04d0d36aa4ab55e90f8986d12d4aad",
        seed_rekey: "2d63f6debc92048b4fef3889c4c99ca67d6496e0fac14a2bca9a2d6566ff2398",
        child: "7d808e2b44635300e7025f1b640c431b13a9b3b891cd45a15261f4f3c4a7e39b3a3c8017ccc2b74610faf52ba3faf6d9e83c\
            859b448217b24dadc82c9887460b7bd724236b9885914cc93b39d6c749e92f36b30c9eb6a9f59e396bc7c0ac4878512639cc\
            612c5660ddb1a1fed360ac8b9b3f548f13482d0431b38eca293ef97681e179fc",
        child_shared: "67edd256e64542436173e3ca39ef1fdec3c8240b860df26f84caf5258578ff35df40ddc31ea210e0523988b7531c9dc3207e\
            0e98e256214999c7712f73ff044a9cf6e3a5e421862b9ba140862f460ea5236527cf8346db9ac23feb6636e21fc7a18a94a2\
            e9d4ad95356e278f46ac3fa53a75a058c87293cf38dd863e879f84d0e0935da3",
    },
    Row {
        prf: Prf::HmacSha384,
        nonce_i: "fd1b572a8e735591",
        nonce_r: "6013b0ef88dacd3d",
        shared: "d3288cd87565101e88fe3bad918f31939d8dd26ff1071f8b2d7f447524e58d7c",
        shared_new: "3358f620539473aee8d07e779764c4c6a9aabddc79a28e136b3bac021dbde44a",
        spi_i: "2116ad07ce61f749",
        spi_r: "24880e55f11a65b7",
        seed: "69fe7a1ac94adaeb711295f5fe004b1a8d6a0b65d05692758ce8ad2f7a45f59d7d0b596f51f7dfcf3330061888f6a94f",
        material: "4f904c2025c90c817ea5ff9b662a6fdb445a73b57cdf09eacd379b95e1f03cacb04cd6deeda4f952191dd9bc1f7a9502471a\
            648d74dc06d38112de48a42501f6b1a3ad55c2099cd9a648e5f17e5bf3e34bf9b5953decb768a34f875fe2b78dca0c2fcca8\
            1ec1a412006dfaed38fa06882e61f4c148105fb8e231fdb33c4d484c001721d4",
        seed_rekey: "e0548c1682e13bce454026b3b1bdf42985b24e4e7408095a7c529de38c3d1fcb04c9fe6868042a34c9614c6c99e3fcea",
        child: "06126cc023ac8aabb3ae1ae2d583005a16d39e889efd09d588f2995883261e55f44f959072d25ea2f035a64ee8e2341421e7\
            a2d95344282f6ff1f2a9ef236b5ec7eae4bb1074ce1f206461209c19dc05a61bbc10a5ec0391bdcd1d25831f8d1199af4673\
            59a13cb5f9b11187ad97379469f8a1ff3d612b18f165d32e3b5fc6440f447321",
        child_shared: "e31b1b94e0b2146ae66dfe223ca64ccf0895fb6c8862990b446b80a4a81fd801ed5fdbcee6e9455c4d56ee10cd73ea77d8c0\
            1f31d4e2fcc9d65765327e13f497f631ba09d99b39aff2ffa9082c59334a9eb082f795cde78989b1be547fde560eb49d5b26\
            2e86ef2e2094eab785008e3038dd7bb0d4ac7dac6f99d9c7945950f21b9f44de",
    },
    Row {
        prf: Prf::HmacSha512,
        nonce_i: "3f302be1abcb28e1",
        nonce_r: "8c332ee006064c9b",
        shared: "0f4d257d7a58fc4545c7d7a88119eee5d5c9690c5b4c989171d3abbfd99d1d29",
        shared_new: "25f3b12d6f282739256e39bf54eda53b60ffcf379bb7bcc90c27b4c4c578616c",
        spi_i: "40dac39e1e1a8640",
        spi_r: "8619a1cf9a6e4c07",
        seed: "74fb685d92c6985f64e98c139a691f7b61518d5a98e562d4b66041438c0e1928b278676e0f834cc016633fed6d23959c81db\
            dcf4edc1224e1d5024918b0b108a",
        material: "e9233c438dd915075b72c82b12d238a5dc4aade0b85d14906b939ae23b9a4447246674eb1754db88f725f29e2076199e3a61\
            976477eb9e1700c550b996871af6749b1bb5a1ee2c82489f6fb89c20981f8df83176c4239acd02470ac0ce8448400589662e\
            a98201287f544e87f431c732ad39d70353a9f96516c52b722abb7c8724ee34ee",
        seed_rekey: "b504dda241be5d85e1fee06a9217c7c9bc57d17b91e33bac04f76801f936260265ea73ff39d1312115f5f938d20b29812ce0\
            62cf127d3cbe69a668d605e69346",
        child: "36570091ddd21fdabd93bc97da9b96bf3bacf350556da029c90ec7c5e761817ae5173c52d399742eee40014fc399f4f1a724\
            e8e68aa125513f20b26a902f25b84a45e53d895279e636b57b50a40c095a1d72d8b31424e32be5bf81f9113358b9ec5ab29d\
            fa1aaf9ab78b279cd1b18885448bd5403ee0ed81bdc0849946e2d1aa92382518",
        child_shared: "5bdee14c4434494ca997232c2879d597ae45631eacd5bcb0d9c69740a4ac7f2d19128ddf04c9cbde83371856dd2841b9e1f5\
            a958cf9cb2b42b8ae14a1f1ba542e6a5515e871f750827a0aa4be16b1f265aa9aa37083299755253df1fcffc8c188961993d\
            bd57b2df112c40ffcfb55a6a94626a9dec1a4bedf01dbae78c138e2e7960025a",
    },
];

fn hex(digits: &str) -> Vec<u8> {
    let values: Vec<u8> = digits.chars().map(|c| c.to_digit(16).expect("hexadecimal") as u8).collect();
    values.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn keys_of_an_ike_sa_are_nists() {
    for row in &ROWS {
        let (nonce_i, nonce_r) = (hex(row.nonce_i), hex(row.nonce_r));
        let spi = |digits| hex(digits).try_into().expect("8 bytes");
        let exchange = Exchange { nonce_i: &nonce_i, nonce_r: &nonce_r, spi_i: spi(row.spi_i), spi_r: spi(row.spi_r) };
        let (shared, new) = (Secret::new(hex(row.shared)), Secret::new(hex(row.shared_new)));
        let prf = row.prf;

        let nonces = [&nonce_i[..], &nonce_r].concat();
        assert_eq!(prf.mac(&nonces, &[shared.as_bytes()]).as_bytes(), hex(row.seed));

        // A cipher whose seven keys have at least as many bytes as NIST's row.
        let cipher = Cipher::AesCbc { bits: AesBits::B256, integrity: Integrity::HmacSha256_128 };
        let keys = IkeKeys::initial(prf, cipher, &shared, &exchange);
        let all = [&keys.d, &keys.ai, &keys.ar, &keys.ei, &keys.er, &keys.pi, &keys.pr].map(Secret::as_bytes).concat();
        assert_eq!(all[..132], hex(row.material));

        let rekeyed = keys.rekey(prf, prf, cipher, &[&new], &exchange);
        let parts: [&[u8]; 4] = [&nonce_i, &nonce_r, &exchange.spi_i, &exchange.spi_r];
        assert_eq!(rekeyed.d, prf.plus(&hex(row.seed_rekey), &parts, prf.len()));
    }
}

#[test]
fn keys_of_a_child_sa_are_those_of_the_formula() {
    for row in &ROWS {
        let (nonce_i, nonce_r) = (hex(row.nonce_i), hex(row.nonce_r));
        let d = Secret::new(hex(row.material)[..row.prf.len()].to_vec());
        let new = Secret::new(hex(row.shared_new));
        assert_eq!(child_keys(row.prf, &d, &[], &nonce_i, &nonce_r, 132).as_bytes(), hex(row.child));
        assert_eq!(child_keys(row.prf, &d, &[&new], &nonce_i, &nonce_r, 132).as_bytes(), hex(row.child_shared));
    }
}
