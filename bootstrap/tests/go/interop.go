// Checks notes, checkpoints and proofs with the libraries of the Go checksum
// database, and makes such for our own code to check.
//
//	interop make     writes vectors to standard output, the same each time
//	interop check    reads vectors from standard input and verifies all of them
//
// Needs golang.org/x/mod/sumdb (Debian: golang-golang-x-mod-dev) and nothing else
// that is not Go's own. The form of the vectors is the type Vectors below.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Vectors is one log with proofs, and notes.
type Vectors struct {
	// The records, and the roots of the trees over the first 1, 2, … of them.
	Records []string
	Roots   []tlog.Hash
	// Every proof within the largest tree and those named.
	Inclusion   []Inclusion
	Consistency []Consistency
	Notes       []Note
	// Bodies of add-checkpoint with the checkpoint that they start from.
	Requests []Request
}

// Inclusion proves that record Index is in the tree of Size.
type Inclusion struct {
	Index, Size int64
	Proof       tlog.RecordProof
}

// Consistency proves that the tree of New records begins with that of Old.
type Consistency struct {
	Old, New int64
	Proof    tlog.TreeProof
}

// Note is a note and who signed it.
type Note struct {
	// In base64, because some are not valid.
	Note []byte
	// Keys that the reader knows.
	Keys []string
	// Name and hash of those that signed, in the order of Keys; none for a note that
	// must be refused.
	Signers []string
	// What each of them states as time, 0 for a plain signature.
	Times []uint64
}

// Request is the question to a witness.
type Request struct {
	Body []byte
	// The key of the log.
	Key string
}

const (
	plain       = 1
	cosignature = 4
	// The domain id that the test founds on "fixture", and a store id.
	domain = "asl1ccqqecm6hezvjhp92cvr6a8csm8fcms3dn245h9el5h640w96mzsl2u5sm"
	store  = "000102030405060708090a0b0c0d0e0f"
)

// A key of either kind. It is written here from the specification because
// the library only knows the plain kind.
type key struct {
	name    string
	kind    byte
	public  ed25519.PublicKey
	private ed25519.PrivateKey
	time    uint64
}

func (k *key) Name() string { return k.name }

func (k *key) KeyHash() uint32 {
	sum := sha256.Sum256(append([]byte(k.name+"\n"+string([]byte{k.kind})), k.public...))
	return binary.BigEndian.Uint32(sum[:4])
}

func (k *key) text() string {
	encoded := base64.StdEncoding.EncodeToString(append([]byte{k.kind}, k.public...))
	return fmt.Sprintf("%s+%08x+%s", k.name, k.KeyHash(), encoded)
}

func cosigned(msg []byte, time uint64) []byte {
	return []byte(fmt.Sprintf("cosignature/v1\ntime %d\n%s", time, msg))
}

func (k *key) Sign(msg []byte) ([]byte, error) {
	if k.kind == plain {
		return ed25519.Sign(k.private, msg), nil
	}
	sig := make([]byte, 8)
	binary.BigEndian.PutUint64(sig, k.time)
	return append(sig, ed25519.Sign(k.private, cosigned(msg, k.time))...), nil
}

func (k *key) Verify(msg, sig []byte) bool {
	if k.kind == plain {
		return ed25519.Verify(k.public, msg, sig)
	}
	if len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	k.time = binary.BigEndian.Uint64(sig)
	return k.time < 1<<63 && ed25519.Verify(k.public, cosigned(msg, k.time), sig[8:])
}

// verifier is the library's own for a plain key.
func verifier(text string) note.Verifier {
	v, err := note.NewVerifier(text)
	if err == nil {
		return v
	}
	parts := strings.SplitN(text, "+", 3)
	require(len(parts) == 3, "not a key: %s", text)
	bytes, err := base64.StdEncoding.DecodeString(parts[2])
	fatal(err)
	require(len(bytes) == 33 && bytes[0] == cosignature, "not a cosigner's key: %s", text)
	k := &key{name: parts[0], kind: cosignature, public: bytes[1:]}
	require(k.text() == text, "the hash of the key is wrong: %s", text)
	return k
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func require(ok bool, format string, args ...interface{}) {
	if !ok {
		fatal(fmt.Errorf(format, args...))
	}
}

func seeded(name string, kind byte, seed byte, time uint64) *key {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	return &key{name, kind, private.Public().(ed25519.PublicKey), private, time}
}

func makeVectors() Vectors {
	var v Vectors
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var hashes []tlog.Hash
		for _, i := range indexes {
			hashes = append(hashes, stored[i])
		}
		return hashes, nil
	})
	const size = 21
	for i := int64(0); i < size; i++ {
		record := strings.Repeat(strconv.FormatInt(i, 10), int(i))
		hashes, err := tlog.StoredHashes(i, []byte(record), reader)
		fatal(err)
		stored = append(stored, hashes...)
		root, err := tlog.TreeHash(i+1, reader)
		fatal(err)
		v.Records = append(v.Records, record)
		v.Roots = append(v.Roots, root)
	}
	for _, n := range []int64{1, 2, 3, 7, 8, 13, size} {
		for i := int64(0); i < n; i++ {
			proof, err := tlog.ProveRecord(n, i, reader)
			fatal(err)
			v.Inclusion = append(v.Inclusion, Inclusion{i, n, proof})
		}
		for i := int64(1); i <= n; i++ {
			proof, err := tlog.ProveTree(n, i, reader)
			fatal(err)
			v.Consistency = append(v.Consistency, Consistency{i, n, proof})
		}
	}

	sign := func(text string, known []*key, keys ...*key) []byte {
		var signers []note.Signer
		for _, k := range keys {
			signers = append(signers, k)
		}
		msg, err := note.Sign(&note.Note{Text: text}, signers...)
		fatal(err)
		n := Note{Note: msg}
		for _, k := range known {
			n.Keys = append(n.Keys, k.text())
			for _, by := range keys {
				if by.text() == k.text() {
					n.Signers = append(n.Signers, fmt.Sprintf("%s+%08x", k.name, k.KeyHash()))
					n.Times = append(n.Times, k.time)
				}
			}
		}
		v.Notes = append(v.Notes, n)
		return msg
	}
	log := seeded(domain, plain, 1, 0)
	first := seeded("witness.example/1", cosignature, 2, 1700000000)
	second := seeded("zeuge-№2", cosignature, 3, 0)
	other := seeded("example.org/other", plain, 4, 0)
	sign("a text\n", []*key{other}, other)
	sign("a text\n\nwith a blank line, Ümläute and — a dash\n", []*key{log, other}, other)
	sign("\n", []*key{other}, other)
	for n := int64(1); n <= size; n += 5 {
		text := fmt.Sprintf("%s/%s\n%d\n%s\n", domain, store, n, v.Roots[n-1])
		sign(text, []*key{log}, log)
		sign(text, []*key{log, first, second, other}, log, first, second)
		sign(text, []*key{second, first, other}, other, log, second)
		if n > 5 {
			proof, err := tlog.ProveTree(n, n-5, reader)
			fatal(err)
			body := fmt.Sprintf("old %d\n", n-5)
			for _, h := range proof {
				body += h.String() + "\n"
			}
			v.Requests = append(v.Requests, Request{[]byte(body + "\n" + string(sign(text, []*key{log}, log))), log.text()})
		}
	}
	// What must be refused: signed by others, changed, by the right key under another name.
	refuse := func(msg []byte, keys ...*key) {
		n := Note{Note: msg}
		for _, k := range keys {
			n.Keys = append(n.Keys, k.text())
		}
		_, err := note.Open(msg, verifiers(n.Keys))
		require(err != nil, "the library accepts a bad note")
		v.Notes = append(v.Notes, n)
	}
	good := v.Notes[4].Note
	refuse(good, other)
	refuse(bytes.Replace(good, []byte("/"), []byte("\\"), 1), log)
	refuse(good[:len(good)-1], log)
	refuse(bytes.Replace(good, []byte("witness.example/1"), []byte("zeuge-№2"), 1), first)
	refuse(bytes.Replace(good, []byte("\n\n"), []byte("\n"), 1), log)
	refuse(good, seeded(domain, plain, 4, 0))
	return v
}

func verifiers(keys []string) note.Verifiers {
	var list []note.Verifier
	for _, k := range keys {
		list = append(list, verifier(k))
	}
	return note.VerifierList(list...)
}

func checkNote(n Note) {
	var list []note.Verifier
	for _, k := range n.Keys {
		list = append(list, verifier(k))
	}
	opened, err := note.Open(n.Note, note.VerifierList(list...))
	if len(n.Signers) == 0 {
		require(err != nil, "accepted, but should be refused:\n%s", n.Note)
		return
	}
	require(err == nil, "%v:\n%s", err, n.Note)
	signed := map[string]bool{}
	for _, s := range opened.Sigs {
		signed[fmt.Sprintf("%s+%08x", s.Name, s.Hash)] = true
	}
	require(len(signed) == len(n.Signers), "%d signers, not %d:\n%s", len(signed), len(n.Signers), n.Note)
	for i, name := range n.Signers {
		require(signed[name], "%s has not signed:\n%s", name, n.Note)
		for _, v := range list {
			k, ok := v.(*key)
			if ok && fmt.Sprintf("%s+%08x", k.name, k.KeyHash()) == name {
				require(k.time == n.Times[i], "%s states the time %d, not %d", name, k.time, n.Times[i])
			}
		}
	}
}

func (v *Vectors) checkRequest(r Request) {
	head, checkpoint := cut(string(r.Body), "\n\n")
	lines := strings.Split(head, "\n")
	old, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	fatal(err)
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		fatal(err)
		proof = append(proof, h)
	}
	opened, err := note.Open([]byte(checkpoint), verifiers([]string{r.Key}))
	fatal(err)
	// The library's own reader of checkpoints knows one origin.
	_, rest := cut(opened.Text, "\n")
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + rest))
	fatal(err)
	require(tree.Hash == v.Roots[tree.N-1], "the root at %d is another", tree.N)
	if old > 0 {
		fatal(tlog.CheckTree(proof, tree.N, tree.Hash, old, v.Roots[old-1]))
	} else {
		require(len(proof) == 0, "a proof from nothing")
	}
}

func cut(s, sep string) (string, string) {
	i := strings.Index(s, sep)
	require(i >= 0, "no %q in %q", sep, s)
	return s[:i], s[i+len(sep):]
}

func (v *Vectors) check() {
	require(len(v.Records) == len(v.Roots), "%d roots of %d records", len(v.Roots), len(v.Records))
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var hashes []tlog.Hash
		for _, i := range indexes {
			hashes = append(hashes, stored[i])
		}
		return hashes, nil
	})
	for i, record := range v.Records {
		hashes, err := tlog.StoredHashes(int64(i), []byte(record), reader)
		fatal(err)
		stored = append(stored, hashes...)
		root, err := tlog.TreeHash(int64(i)+1, reader)
		fatal(err)
		require(root == v.Roots[i], "the root at %d is %v, not %v", i+1, root, v.Roots[i])
	}
	for _, p := range v.Inclusion {
		leaf := tlog.RecordHash([]byte(v.Records[p.Index]))
		err := tlog.CheckRecord(p.Proof, p.Size, v.Roots[p.Size-1], p.Index, leaf)
		require(err == nil, "record %d of %d: %v", p.Index, p.Size, err)
	}
	for _, p := range v.Consistency {
		err := tlog.CheckTree(p.Proof, p.New, v.Roots[p.New-1], p.Old, v.Roots[p.Old-1])
		require(err == nil, "tree %d in %d: %v", p.Old, p.New, err)
	}
	for _, n := range v.Notes {
		checkNote(n)
	}
	for _, r := range v.Requests {
		v.checkRequest(r)
	}
	fmt.Printf("checked %d roots, %d inclusion proofs, %d consistency proofs, %d notes, %d requests\n",
		len(v.Roots), len(v.Inclusion), len(v.Consistency), len(v.Notes), len(v.Requests))
}

func main() {
	require(len(os.Args) == 2, "usage: interop make|check")
	switch os.Args[1] {
	case "make":
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", " ")
		fatal(out.Encode(makeVectors()))
	case "check":
		var v Vectors
		in := json.NewDecoder(os.Stdin)
		in.DisallowUnknownFields()
		fatal(in.Decode(&v))
		v.check()
	default:
		fatal(fmt.Errorf("usage: interop make|check"))
	}
}
