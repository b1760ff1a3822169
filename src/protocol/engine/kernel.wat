;; Byte processing for packets, one batch per call. OpenSSL does AES and the long inner hash of HMAC. The short outer
;; hash, for which a call costs more than the hashing, is computed here for four packets at a time. No branch or memory
;; address depends on a secret other than the length of the data.
;;
;; Memory, in data-flow order (64 packets per batch):
;;
;;   COUNTERS   64 x 65 x 16   counter blocks, BE64(packet number) || BE64(block); the block part never changes
;;   LINE       64 + 32 + 32   key ^ ipad, and the SHA-256 state after key ^ opad, of a cipher without a line of its own
;;   KEYSTREAM  64 x 65 x 16   AES-256 of the counter blocks
;;   INPUT      1088 + 128 Ki  socket reads, after space for a partial packet
;;   SLOTS      64 x 1104      input of HMAC's inner hash: key ^ ipad (64) | ciphertext (1028) | BE64(number) (8)
;;   RECEIVED   64 x 32        MACs of the packets to open
;;   EXPECTED   64 x 32        MACs computed from their ciphertext
;;   INNER      64 x 32        HMAC's inner hashes
;;   STATE      8 x 16         SHA-256: states of four parallel hashes, one word of each per vector
;;   SCHEDULE   64 x 16        SHA-256: their message schedules, in the same layout
;;   OPAD       64             key ^ opad, the input for the state in LINE
;;   ROUND      64 x 4         SHA-256: round constants
;;   INITIAL    8 x 4          SHA-256: initial state
;;   HEAP                      outputs and lines, which kernel.ts lays out
;;
;; A line is the same as LINE and KEYSTREAM, with keystream for 8 packets. Functions take the address of a line, and
;; addresses in INPUT and in outputs. An output has 64 bytes of padding in front.
(module
  (memory (export "memory") 168 168)
  (global $COUNTERS (export "COUNTERS") i32 (i32.const 0))
  (global $LINE (export "LINE") i32 (i32.const 66560))
  (global $KEYSTREAM i32 (i32.const 66688))
  (global $INPUT (export "INPUT") i32 (i32.const 133248))
  (global $SLOTS (export "SLOTS") i32 (i32.const 265408))
  (global $RECEIVED (export "RECEIVED") i32 (i32.const 336064))
  (global $EXPECTED (export "EXPECTED") i32 (i32.const 338112))
  (global $INNER (export "INNER") i32 (i32.const 340160))
  (global $STATE i32 (i32.const 342208))
  (global $SCHEDULE i32 (i32.const 342336))
  (global $OPAD (export "OPAD") i32 (i32.const 343360))
  (global $ROUND i32 (i32.const 343424))
  (global $INITIAL i32 (i32.const 343680))
  (global $HEAP (export "HEAP") i32 (i32.const 343744))

  ;; ROUND: the first 32 bits of the fractional parts of the cube roots of the first 64 primes, little-endian.
  (data (i32.const 343424)
    "\98\2f\8a\42\91\44\37\71\cf\fb\c0\b5\a5\db\b5\e9\5b\c2\56\39\f1\11\f1\59\a4\82\3f\92\d5\5e\1c\ab"
    "\98\aa\07\d8\01\5b\83\12\be\85\31\24\c3\7d\0c\55\74\5d\be\72\fe\b1\de\80\a7\06\dc\9b\74\f1\9b\c1"
    "\c1\69\9b\e4\86\47\be\ef\c6\9d\c1\0f\cc\a1\0c\24\6f\2c\e9\2d\aa\84\74\4a\dc\a9\b0\5c\da\88\f9\76"
    "\52\51\3e\98\6d\c6\31\a8\c8\27\03\b0\c7\7f\59\bf\f3\0b\e0\c6\47\91\a7\d5\51\63\ca\06\67\29\29\14"
    "\85\0a\b7\27\38\21\1b\2e\fc\6d\2c\4d\13\0d\38\53\54\73\0a\65\bb\0a\6a\76\2e\c9\c2\81\85\2c\72\92"
    "\a1\e8\bf\a2\4b\66\1a\a8\70\8b\4b\c2\a3\51\6c\c7\19\e8\92\d1\24\06\99\d6\85\35\0e\f4\70\a0\6a\10"
    "\16\c1\a4\19\08\6c\37\1e\4c\77\48\27\b5\bc\b0\34\b3\0c\1c\39\4a\aa\d8\4e\4f\ca\9c\5b\f3\6f\2e\68"
    "\ee\82\8f\74\6f\63\a5\78\14\78\c8\84\08\02\c7\8c\fa\ff\be\90\eb\6c\50\a4\f7\a3\f9\be\f2\78\71\c6")
  ;; INITIAL: the same for the square roots of the first 8 primes.
  (data (i32.const 343680)
    "\67\e6\09\6a\85\ae\67\bb\72\f3\6e\3c\3a\f5\4f\a5\7f\52\0e\51\8c\68\05\9b\ab\d9\83\1f\19\cd\e0\5b")

  (func $swap (param $x i32) (result i32)
    (i32.or
      (i32.and (i32.rotl (local.get $x) (i32.const 8)) (i32.const 0x00ff00ff))
      (i32.and (i32.rotr (local.get $x) (i32.const 8)) (i32.const 0xff00ff00))))

  ;; BE64(high:low), as the i64 that a store writes.
  (func $bigEndian (param $high i32) (param $low i32) (result i64)
    (i64.or
      (i64.extend_i32_u (call $swap (local.get $high)))
      (i64.shl (i64.extend_i32_u (call $swap (local.get $low))) (i64.const 32))))

  ;; Writes the block numbers into the counter blocks.
  (func (export "initialize")
    (local $counter i32) (local $block i32)
    (local.set $counter (global.get $COUNTERS))
    (loop $next
      (i32.store offset=12 (local.get $counter) (call $swap (local.get $block)))
      (local.set $block (i32.add (local.get $block) (i32.const 1)))
      (if (i32.eq (local.get $block) (i32.const 65)) (then (local.set $block (i32.const 0))))
      (local.set $counter (i32.add (local.get $counter) (i32.const 16)))
      (br_if $next (i32.lt_u (local.get $counter) (global.get $LINE)))))

  ;; Writes the packet numbers from $high:$low on into the counter blocks of $count packets.
  (func (export "writeCounters") (param $count i32) (param $high i32) (param $low i32)
    (local $counter i32) (local $end i32) (local $number i64)
    (local.set $counter (global.get $COUNTERS))
    (loop $packet
      (local.set $number (call $bigEndian (local.get $high) (local.get $low)))
      (local.set $end (i32.add (local.get $counter) (i32.const 1040)))
      (loop $block
        (i64.store (local.get $counter) (local.get $number))
        (local.set $counter (i32.add (local.get $counter) (i32.const 16)))
        (br_if $block (i32.lt_u (local.get $counter) (local.get $end))))
      (local.set $low (i32.add (local.get $low) (i32.const 1)))
      (local.set $high (i32.add (local.get $high) (i32.eqz (local.get $low))))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $packet (local.get $count))))

  ;; Copies key ^ ipad from a line to $target.
  (func $copyPad (param $line i32) (param $target i32)
    (v128.store (local.get $target) (v128.load (local.get $line)))
    (v128.store offset=16 (local.get $target) (v128.load offset=16 (local.get $line)))
    (v128.store offset=32 (local.get $target) (v128.load offset=32 (local.get $line)))
    (v128.store offset=48 (local.get $target) (v128.load offset=48 (local.get $line))))

  ;; Writes key ^ ipad and the packet numbers from $high:$low on into the slots of $count packets.
  (func (export "number") (param $line i32) (param $count i32) (param $high i32) (param $low i32)
    (local $slot i32)
    (local.set $slot (global.get $SLOTS))
    (loop $packet
      (call $copyPad (local.get $line) (local.get $slot))
      (i64.store offset=1092 (local.get $slot) (call $bigEndian (local.get $high) (local.get $low)))
      (local.set $slot (i32.add (local.get $slot) (i32.const 1104)))
      (local.set $low (i32.add (local.get $low) (i32.const 1)))
      (local.set $high (i32.add (local.get $high) (i32.eqz (local.get $low))))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $packet (local.get $count))))

  ;; Zero-pads $length bytes at $input to a multiple of 1024.
  (func $pad (param $input i32) (param $length i32)
    (memory.fill
      (i32.add (local.get $input) (local.get $length))
      (i32.const 0)
      (i32.and (i32.sub (i32.const 0) (local.get $length)) (i32.const 1023))))

  ;; Encrypts $length bytes at $input, which it zero-pads to a multiple of 1024, into the slots and to $output.
  (func (export "encrypt") (param $input i32) (param $length i32) (param $output i32)
    (local $end i32) (local $key i32) (local $slot i32) (local $x v128) (local $word i32)
    (call $pad (local.get $input) (local.get $length))
    (local.set $key (global.get $KEYSTREAM))
    (local.set $slot (global.get $SLOTS))
    (loop $packet
      (local.set $end (i32.add (local.get $input) (i32.const 1024)))
      (loop $block
        (local.set $x (v128.xor (v128.load (local.get $input)) (v128.load (local.get $key))))
        (v128.store offset=64 (local.get $slot) (local.get $x))
        (v128.store (local.get $output) (local.get $x))
        (local.set $x (v128.xor (v128.load offset=16 (local.get $input)) (v128.load offset=16 (local.get $key))))
        (v128.store offset=80 (local.get $slot) (local.get $x))
        (v128.store offset=16 (local.get $output) (local.get $x))
        (local.set $x (v128.xor (v128.load offset=32 (local.get $input)) (v128.load offset=32 (local.get $key))))
        (v128.store offset=96 (local.get $slot) (local.get $x))
        (v128.store offset=32 (local.get $output) (local.get $x))
        (local.set $x (v128.xor (v128.load offset=48 (local.get $input)) (v128.load offset=48 (local.get $key))))
        (v128.store offset=112 (local.get $slot) (local.get $x))
        (v128.store offset=48 (local.get $output) (local.get $x))
        (local.set $input (i32.add (local.get $input) (i32.const 64)))
        (local.set $key (i32.add (local.get $key) (i32.const 64)))
        (local.set $slot (i32.add (local.get $slot) (i32.const 64)))
        (local.set $output (i32.add (local.get $output) (i32.const 64)))
        (br_if $block (i32.lt_u (local.get $input) (local.get $end))))
      (local.set $word
        (i32.xor
          (call $swap
            (select (i32.const 1024) (local.get $length) (i32.gt_u (local.get $length) (i32.const 1024))))
          (i32.load (local.get $key))))
      (i32.store offset=64 (local.get $slot) (local.get $word))
      (i32.store (local.get $output) (local.get $word))
      (local.set $key (i32.add (local.get $key) (i32.const 16)))
      (local.set $slot (i32.add (local.get $slot) (i32.const 80)))
      (local.set $output (i32.add (local.get $output) (i32.const 36)))
      (local.set $length (i32.sub (local.get $length) (i32.const 1024)))
      (br_if $packet (i32.gt_s (local.get $length) (i32.const 0)))))

  ;; Copies the ciphertexts of $count packets at $input to the slots and their MACs to RECEIVED, for verification.
  (func (export "layOut") (param $input i32) (param $count i32)
    (local $slot i32) (local $tag i32)
    (local.set $slot (global.get $SLOTS))
    (local.set $tag (global.get $RECEIVED))
    (loop $packet
      (memory.copy (i32.add (local.get $slot) (i32.const 64)) (local.get $input) (i32.const 1028))
      (v128.store (local.get $tag) (v128.load offset=1028 align=1 (local.get $input)))
      (v128.store offset=16 (local.get $tag) (v128.load offset=1044 align=1 (local.get $input)))
      (local.set $input (i32.add (local.get $input) (i32.const 1060)))
      (local.set $slot (i32.add (local.get $slot) (i32.const 1104)))
      (local.set $tag (i32.add (local.get $tag) (i32.const 32)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br_if $packet (local.get $count))))

  ;; Number of packets that the last `decrypt` decrypted before an invalid length.
  (global $decrypted (export "decrypted") (mut i32) (i32.const 0))

  ;; Decrypts up to $count verified packets at $input to $start, without gaps. Stops at a length that is 0 or above
  ;; 1024. Returns the number of data bytes.
  (func (export "decrypt") (param $input i32) (param $count i32) (param $start i32) (result i32)
    (local $end i32) (local $key i32) (local $output i32) (local $next i32) (local $length i32)
    (local.set $key (global.get $KEYSTREAM))
    (local.set $next (local.get $start))
    (global.set $decrypted (i32.const 0))
    (block $rejected
      (loop $packet
        (local.set $length
          (call $swap
            (i32.xor (i32.load offset=1024 align=1 (local.get $input)) (i32.load offset=1024 (local.get $key)))))
        (br_if $rejected (i32.gt_u (i32.sub (local.get $length) (i32.const 1)) (i32.const 1023)))
        (local.set $output (local.get $next))
        (local.set $next (i32.add (local.get $next) (local.get $length)))
        (local.set $end (i32.add (local.get $input) (i32.const 1024)))
        (loop $block
          (v128.store align=1 (local.get $output)
            (v128.xor (v128.load align=1 (local.get $input)) (v128.load (local.get $key))))
          (v128.store offset=16 align=1 (local.get $output)
            (v128.xor (v128.load offset=16 align=1 (local.get $input)) (v128.load offset=16 (local.get $key))))
          (v128.store offset=32 align=1 (local.get $output)
            (v128.xor (v128.load offset=32 align=1 (local.get $input)) (v128.load offset=32 (local.get $key))))
          (v128.store offset=48 align=1 (local.get $output)
            (v128.xor (v128.load offset=48 align=1 (local.get $input)) (v128.load offset=48 (local.get $key))))
          (local.set $input (i32.add (local.get $input) (i32.const 64)))
          (local.set $key (i32.add (local.get $key) (i32.const 64)))
          (local.set $output (i32.add (local.get $output) (i32.const 64)))
          (br_if $block (i32.lt_u (local.get $input) (local.get $end))))
        (local.set $input (i32.add (local.get $input) (i32.const 36)))
        (local.set $key (i32.add (local.get $key) (i32.const 16)))
        (global.set $decrypted (i32.add (global.get $decrypted) (i32.const 1)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br_if $packet (local.get $count))))
    (i32.sub (local.get $next) (local.get $start)))

  ;; Compresses one block for each of four hashes (SHA-256, FIPS 180-4, 6.2.2): words 0 to 15 of SCHEDULE into STATE.
  ;; For four packets this takes as long as two one-shot hashes through node:crypto (0.5 us).
  (func $compress
    (local $at i32) (local $end i32) (local $round i32) (local $x v128) (local $y v128)
    (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local $e v128) (local $f v128) (local $g v128) (local $h v128)
    ;; $at points to word t - 16 of the schedule while word t is computed.
    (local.set $at (global.get $SCHEDULE))
    (local.set $end (i32.add (global.get $SCHEDULE) (i32.const 768)))
    (loop $word
      (local.set $x (v128.load offset=16 (local.get $at)))
      (local.set $y (v128.load offset=224 (local.get $at)))
      (v128.store offset=256 (local.get $at)
        (i32x4.add
          (i32x4.add
            (v128.load (local.get $at))
            (v128.xor
              (v128.xor
                (v128.or (i32x4.shr_u (local.get $x) (i32.const 7)) (i32x4.shl (local.get $x) (i32.const 25)))
                (v128.or (i32x4.shr_u (local.get $x) (i32.const 18)) (i32x4.shl (local.get $x) (i32.const 14))))
              (i32x4.shr_u (local.get $x) (i32.const 3))))
          (i32x4.add
            (v128.load offset=144 (local.get $at))
            (v128.xor
              (v128.xor
                (v128.or (i32x4.shr_u (local.get $y) (i32.const 17)) (i32x4.shl (local.get $y) (i32.const 15)))
                (v128.or (i32x4.shr_u (local.get $y) (i32.const 19)) (i32x4.shl (local.get $y) (i32.const 13))))
              (i32x4.shr_u (local.get $y) (i32.const 10))))))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br_if $word (i32.lt_u (local.get $at) (local.get $end))))
    (local.set $a (v128.load (global.get $STATE)))
    (local.set $b (v128.load offset=16 (global.get $STATE)))
    (local.set $c (v128.load offset=32 (global.get $STATE)))
    (local.set $d (v128.load offset=48 (global.get $STATE)))
    (local.set $e (v128.load offset=64 (global.get $STATE)))
    (local.set $f (v128.load offset=80 (global.get $STATE)))
    (local.set $g (v128.load offset=96 (global.get $STATE)))
    (local.set $h (v128.load offset=112 (global.get $STATE)))
    (local.set $at (global.get $SCHEDULE))
    (local.set $end (i32.add (global.get $SCHEDULE) (i32.const 1024)))
    (local.set $round (global.get $ROUND))
    (loop $step
      ;; T1, in $x: h + Sigma1(e) + Ch(e, f, g) + K + W
      (local.set $x
        (i32x4.add
          (i32x4.add
            (i32x4.add (local.get $h) (v128.bitselect (local.get $f) (local.get $g) (local.get $e)))
            (i32x4.add (v128.load32_splat (local.get $round)) (v128.load (local.get $at))))
          (v128.xor
            (v128.xor
              (v128.or (i32x4.shr_u (local.get $e) (i32.const 6)) (i32x4.shl (local.get $e) (i32.const 26)))
              (v128.or (i32x4.shr_u (local.get $e) (i32.const 11)) (i32x4.shl (local.get $e) (i32.const 21))))
            (v128.or (i32x4.shr_u (local.get $e) (i32.const 25)) (i32x4.shl (local.get $e) (i32.const 7))))))
      ;; T2, in $y: Sigma0(a) + Maj(a, b, c)
      (local.set $y
        (i32x4.add
          (v128.xor
            (v128.xor
              (v128.or (i32x4.shr_u (local.get $a) (i32.const 2)) (i32x4.shl (local.get $a) (i32.const 30)))
              (v128.or (i32x4.shr_u (local.get $a) (i32.const 13)) (i32x4.shl (local.get $a) (i32.const 19))))
            (v128.or (i32x4.shr_u (local.get $a) (i32.const 22)) (i32x4.shl (local.get $a) (i32.const 10))))
          (v128.bitselect (local.get $c) (local.get $b) (v128.xor (local.get $a) (local.get $b)))))
      (local.set $h (local.get $g))
      (local.set $g (local.get $f))
      (local.set $f (local.get $e))
      (local.set $e (i32x4.add (local.get $d) (local.get $x)))
      (local.set $d (local.get $c))
      (local.set $c (local.get $b))
      (local.set $b (local.get $a))
      (local.set $a (i32x4.add (local.get $x) (local.get $y)))
      (local.set $round (i32.add (local.get $round) (i32.const 4)))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br_if $step (i32.lt_u (local.get $at) (local.get $end))))
    (v128.store (global.get $STATE) (i32x4.add (v128.load (global.get $STATE)) (local.get $a)))
    (v128.store offset=16 (global.get $STATE) (i32x4.add (v128.load offset=16 (global.get $STATE)) (local.get $b)))
    (v128.store offset=32 (global.get $STATE) (i32x4.add (v128.load offset=32 (global.get $STATE)) (local.get $c)))
    (v128.store offset=48 (global.get $STATE) (i32x4.add (v128.load offset=48 (global.get $STATE)) (local.get $d)))
    (v128.store offset=64 (global.get $STATE) (i32x4.add (v128.load offset=64 (global.get $STATE)) (local.get $e)))
    (v128.store offset=80 (global.get $STATE) (i32x4.add (v128.load offset=80 (global.get $STATE)) (local.get $f)))
    (v128.store offset=96 (global.get $STATE) (i32x4.add (v128.load offset=96 (global.get $STATE)) (local.get $g)))
    (v128.store offset=112 (global.get $STATE) (i32x4.add (v128.load offset=112 (global.get $STATE)) (local.get $h))))

  ;; Transposes four words of four messages into four vectors with one word of each message, or back, and swaps the
  ;; bytes of each word.
  (func $transpose (param $a v128) (param $b v128) (param $c v128) (param $d v128) (result v128 v128 v128 v128)
    (local $x v128) (local $y v128) (local $z v128) (local $w v128)
    (local.set $x
      (i8x16.shuffle 3 2 1 0 19 18 17 16 7 6 5 4 23 22 21 20 (local.get $a) (local.get $b)))
    (local.set $y
      (i8x16.shuffle 3 2 1 0 19 18 17 16 7 6 5 4 23 22 21 20 (local.get $c) (local.get $d)))
    (local.set $z
      (i8x16.shuffle 11 10 9 8 27 26 25 24 15 14 13 12 31 30 29 28 (local.get $a) (local.get $b)))
    (local.set $w
      (i8x16.shuffle 11 10 9 8 27 26 25 24 15 14 13 12 31 30 29 28 (local.get $c) (local.get $d)))
    (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23 (local.get $x) (local.get $y))
    (i8x16.shuffle 8 9 10 11 12 13 14 15 24 25 26 27 28 29 30 31 (local.get $x) (local.get $y))
    (i8x16.shuffle 0 1 2 3 4 5 6 7 16 17 18 19 20 21 22 23 (local.get $z) (local.get $w))
    (i8x16.shuffle 8 9 10 11 12 13 14 15 24 25 26 27 28 29 30 31 (local.get $z) (local.get $w)))

  ;; Writes the SHA-256 state after the block in OPAD to LINE.
  (func (export "prepare")
    (local $i i32)
    (loop $word
      (v128.store (i32.add (global.get $SCHEDULE) (i32.shl (local.get $i) (i32.const 4)))
        (i32x4.splat
          (call $swap (i32.load (i32.add (global.get $OPAD) (i32.shl (local.get $i) (i32.const 2)))))))
      (br_if $word
        (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 16))))
    (call $spread (global.get $INITIAL))
    (call $compress)
    (local.set $i (i32.const 0))
    (loop $word
      (i32.store offset=64 (i32.add (global.get $LINE) (i32.shl (local.get $i) (i32.const 2)))
        (i32.load (i32.add (global.get $STATE) (i32.shl (local.get $i) (i32.const 4)))))
      (br_if $word
        (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 8)))))

  ;; Sets the state of all four hashes to the 8 words at $from.
  (func $spread (param $from i32)
    (v128.store (global.get $STATE) (v128.load32_splat (local.get $from)))
    (v128.store offset=16 (global.get $STATE) (v128.load32_splat offset=4 (local.get $from)))
    (v128.store offset=32 (global.get $STATE) (v128.load32_splat offset=8 (local.get $from)))
    (v128.store offset=48 (global.get $STATE) (v128.load32_splat offset=12 (local.get $from)))
    (v128.store offset=64 (global.get $STATE) (v128.load32_splat offset=16 (local.get $from)))
    (v128.store offset=80 (global.get $STATE) (v128.load32_splat offset=20 (local.get $from)))
    (v128.store offset=96 (global.get $STATE) (v128.load32_splat offset=24 (local.get $from)))
    (v128.store offset=112 (global.get $STATE) (v128.load32_splat offset=28 (local.get $from))))

  ;; Computes the outer hashes of $count packets from INNER and the state in a line, and writes them to $target, $stride
  ;; bytes apart. They are computed in fours, so up to three more than $count are written.
  (func $tag (export "tag") (param $line i32) (param $count i32) (param $target i32) (param $stride i32)
    (local $inner i32) (local $half i32) (local $a v128) (local $b v128) (local $c v128) (local $d v128)
    (local.set $inner (global.get $INNER))
    (loop $four
      (call $spread (i32.add (local.get $line) (i32.const 64)))
      ;; The block: inner hash, the 1 bit of the padding, zeros, and the length of key block and hash in bits.
      (call $transpose
        (v128.load (local.get $inner)) (v128.load offset=32 (local.get $inner))
        (v128.load offset=64 (local.get $inner)) (v128.load offset=96 (local.get $inner)))
      (local.set $d) (local.set $c) (local.set $b) (local.set $a)
      (v128.store (global.get $SCHEDULE) (local.get $a))
      (v128.store offset=16 (global.get $SCHEDULE) (local.get $b))
      (v128.store offset=32 (global.get $SCHEDULE) (local.get $c))
      (v128.store offset=48 (global.get $SCHEDULE) (local.get $d))
      (call $transpose
        (v128.load offset=16 (local.get $inner)) (v128.load offset=48 (local.get $inner))
        (v128.load offset=80 (local.get $inner)) (v128.load offset=112 (local.get $inner)))
      (local.set $d) (local.set $c) (local.set $b) (local.set $a)
      (v128.store offset=64 (global.get $SCHEDULE) (local.get $a))
      (v128.store offset=80 (global.get $SCHEDULE) (local.get $b))
      (v128.store offset=96 (global.get $SCHEDULE) (local.get $c))
      (v128.store offset=112 (global.get $SCHEDULE) (local.get $d))
      (v128.store offset=128 (global.get $SCHEDULE) (i32x4.splat (i32.const 0x80000000)))
      (memory.fill (i32.add (global.get $SCHEDULE) (i32.const 144)) (i32.const 0) (i32.const 96))
      (v128.store offset=240 (global.get $SCHEDULE) (i32x4.splat (i32.const 768)))
      (call $compress)
      (local.set $half (i32.const 0))
      (loop $halves
        (call $transpose
          (v128.load (i32.add (global.get $STATE) (i32.shl (local.get $half) (i32.const 2))))
          (v128.load offset=16 (i32.add (global.get $STATE) (i32.shl (local.get $half) (i32.const 2))))
          (v128.load offset=32 (i32.add (global.get $STATE) (i32.shl (local.get $half) (i32.const 2))))
          (v128.load offset=48 (i32.add (global.get $STATE) (i32.shl (local.get $half) (i32.const 2)))))
        (local.set $d) (local.set $c) (local.set $b) (local.set $a)
        (v128.store align=4 (i32.add (local.get $target) (local.get $half)) (local.get $a))
        (v128.store align=4
          (i32.add (i32.add (local.get $target) (local.get $half)) (local.get $stride)) (local.get $b))
        (v128.store align=4
          (i32.add (i32.add (local.get $target) (local.get $half)) (i32.shl (local.get $stride) (i32.const 1)))
          (local.get $c))
        (v128.store align=4
          (i32.add (i32.add (local.get $target) (local.get $half)) (i32.mul (local.get $stride) (i32.const 3)))
          (local.get $d))
        (br_if $halves
          (i32.lt_u (local.tee $half (i32.add (local.get $half) (i32.const 16))) (i32.const 32))))
      (local.set $inner (i32.add (local.get $inner) (i32.const 128)))
      (local.set $target (i32.add (local.get $target) (i32.shl (local.get $stride) (i32.const 2))))
      (local.set $count (i32.sub (local.get $count) (i32.const 4)))
      (br_if $four (i32.gt_s (local.get $count) (i32.const 0)))))

  ;; A short message takes the following path, packet by packet, instead of the one above. It needs no slots: the inner
  ;; hash is computed over the packet in place, with key ^ ipad in front of it and its number behind its ciphertext.

  ;; Encrypts $length bytes (1 to 1024) at $input to $output with the keystream at $key, for its inner hash.
  (func (export "sealOne")
    (param $line i32) (param $key i32) (param $input i32) (param $length i32) (param $output i32) (param $high i32) (param $low i32)
    (local $end i32) (local $to i32)
    (call $pad (local.get $input) (local.get $length))
    (call $copyPad (local.get $line) (i32.sub (local.get $output) (i32.const 64)))
    (i64.store offset=1028 align=1 (local.get $output) (call $bigEndian (local.get $high) (local.get $low)))
    (i32.store offset=1024 align=1 (local.get $output)
      (i32.xor (call $swap (local.get $length)) (i32.load offset=1024 (local.get $key))))
    (local.set $end (i32.add (local.get $input) (i32.const 1024)))
    (local.set $to (local.get $output))
    (loop $block
      (v128.store align=1 (local.get $to)
        (v128.xor (v128.load (local.get $input)) (v128.load (local.get $key))))
      (v128.store offset=16 align=1 (local.get $to)
        (v128.xor (v128.load offset=16 (local.get $input)) (v128.load offset=16 (local.get $key))))
      (v128.store offset=32 align=1 (local.get $to)
        (v128.xor (v128.load offset=32 (local.get $input)) (v128.load offset=32 (local.get $key))))
      (v128.store offset=48 align=1 (local.get $to)
        (v128.xor (v128.load offset=48 (local.get $input)) (v128.load offset=48 (local.get $key))))
      (local.set $input (i32.add (local.get $input) (i32.const 64)))
      (local.set $key (i32.add (local.get $key) (i32.const 64)))
      (local.set $to (i32.add (local.get $to) (i32.const 64)))
      (br_if $block (i32.lt_u (local.get $input) (local.get $end)))))

  ;; Overwrites key ^ ipad in front of a packet.
  (func $wipePad (param $packet i32)
    (memory.fill (i32.sub (local.get $packet) (i32.const 64)) (i32.const 0) (i32.const 64)))

  ;; Writes the MAC of the packet at $output, from its inner hash in INNER.
  (func (export "tagOne") (param $line i32) (param $output i32)
    (call $wipePad (local.get $output))
    (call $tag (local.get $line) (i32.const 1) (global.get $EXPECTED) (i32.const 32))
    (v128.store offset=1028 align=1 (local.get $output) (v128.load (global.get $EXPECTED)))
    (v128.store offset=1044 align=1 (local.get $output) (v128.load offset=16 (global.get $EXPECTED))))

  ;; Moves the MAC of the packet at $input to RECEIVED, and prepares the packet for its inner hash.
  (func (export "layOutOne") (param $line i32) (param $input i32) (param $high i32) (param $low i32)
    (v128.store (global.get $RECEIVED) (v128.load offset=1028 align=1 (local.get $input)))
    (v128.store offset=16 (global.get $RECEIVED) (v128.load offset=1044 align=1 (local.get $input)))
    (call $copyPad (local.get $line) (i32.sub (local.get $input) (i32.const 64)))
    (i64.store offset=1028 align=1 (local.get $input) (call $bigEndian (local.get $high) (local.get $low))))

  ;; Verifies the packet at $input, from its inner hash in INNER, then decrypts its data to $output. Returns the length
  ;; of the data, 0 if the MAC is invalid, or -1 if the length is invalid.
  (func (export "openOne")
    (param $line i32) (param $key i32) (param $input i32) (param $output i32) (result i32)
    (local $length i32) (local $end i32)
    (call $wipePad (local.get $input))
    (call $tag (local.get $line) (i32.const 1) (global.get $EXPECTED) (i32.const 32))
    (if
      (v128.any_true
        (v128.or
          (v128.xor (v128.load (global.get $RECEIVED)) (v128.load (global.get $EXPECTED)))
          (v128.xor (v128.load offset=16 (global.get $RECEIVED)) (v128.load offset=16 (global.get $EXPECTED)))))
      (then (return (i32.const 0))))
    (local.set $length
      (call $swap
        (i32.xor (i32.load offset=1024 align=1 (local.get $input)) (i32.load offset=1024 (local.get $key)))))
    (if (i32.gt_u (i32.sub (local.get $length) (i32.const 1)) (i32.const 1023))
      (then (return (i32.const -1))))
    (local.set $end (i32.add (local.get $input) (local.get $length)))
    (loop $block
      (v128.store align=1 (local.get $output)
        (v128.xor (v128.load align=1 (local.get $input)) (v128.load (local.get $key))))
      (local.set $input (i32.add (local.get $input) (i32.const 16)))
      (local.set $key (i32.add (local.get $key) (i32.const 16)))
      (local.set $output (i32.add (local.get $output) (i32.const 16)))
      (br_if $block (i32.lt_u (local.get $input) (local.get $end))))
    (local.get $length))

  ;; Overwrites the keystream and all key material outside lines.
  (func (export "wipe")
    (memory.fill (global.get $LINE) (i32.const 0) (i32.const 66688))
    (memory.fill (global.get $SLOTS) (i32.const 0) (i32.const 78016))))
