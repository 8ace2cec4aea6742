// s3load drives any S3 endpoint with PUTs, GETs or DELETEs and prints one JSON line, so that two stores can be measured in one run.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:9000", "host:port")
	access := flag.String("access", "minioadmin", "access key")
	secret := flag.String("secret", "minioadmin", "secret key")
	bucket := flag.String("bucket", "s3load", "bucket, made if missing")
	op := flag.String("op", "put", "put, get or delete; get and delete use the names that a put run with the same size and n wrote")
	size := flag.Int("size", 4096, "object size in bytes")
	n := flag.Int("n", 1000, "number of objects; a timed put writes as many as it can")
	seconds := flag.Float64("seconds", 0, "go on for so long: puts with new names, gets with the n names over and over")
	c := flag.Int("c", 16, "concurrent clients")
	compressible := flag.Bool("compressible", false, "text-like bytes instead of random ones")
	flag.Parse()

	client, err := minio.New(*endpoint, &minio.Options{Creds: credentials.NewStaticV4(*access, *secret, ""), Region: "us-east-1"})
	check(err)
	ctx := context.Background()
	if ok, err := client.BucketExists(ctx, *bucket); err != nil || !ok {
		check(client.MakeBucket(ctx, *bucket, minio.MakeBucketOptions{Region: "us-east-1"}))
	}
	body := make([]byte, *size)
	rng := rand.New(rand.NewSource(1))
	rng.Read(body)
	if *compressible {
		words := []byte("the quick brown fox jumps over a lazy dog and two datacenters ")
		for i := range body {
			body[i] = words[(i*7+i/61)%len(words)]
		}
	}
	timed := *seconds > 0
	var mu sync.Mutex
	var took []time.Duration
	var next, failed int64 = -1, 0
	var wg sync.WaitGroup
	start := time.Now()
	for w := 0; w < *c; w++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			own := append([]byte(nil), body...)
			var mine []time.Duration
			defer func() {
				mu.Lock()
				took = append(took, mine...)
				mu.Unlock()
			}()
			for {
				i := atomic.AddInt64(&next, 1)
				if timed && time.Since(start).Seconds() >= *seconds || !timed && i >= int64(*n) {
					return
				}
				if *op != "put" {
					i %= int64(*n)
				}
				name := fmt.Sprintf("o/%d/%08d", *size, i)
				t := time.Now()
				var err error
				switch *op {
				case "put":
					copy(own, fmt.Sprintf("%08d", i)) // no two objects alike
					_, err = client.PutObject(ctx, *bucket, name, bytes.NewReader(own), int64(len(own)), minio.PutObjectOptions{DisableMultipart: *size < 64<<20, SendContentMd5: false})
				case "get":
					var o *minio.Object
					if o, err = client.GetObject(ctx, *bucket, name, minio.GetObjectOptions{}); err == nil {
						var got int64
						if got, err = io.Copy(io.Discard, o); err == nil && got != int64(*size) {
							err = fmt.Errorf("%d bytes, not %d", got, *size)
						}
						o.Close()
					}
				case "delete":
					err = client.RemoveObject(ctx, *bucket, name, minio.RemoveObjectOptions{})
				}
				mine = append(mine, time.Since(t))
				if err != nil && atomic.AddInt64(&failed, 1) <= 3 {
					fmt.Fprintln(os.Stderr, name, err)
				}
			}
		}()
	}
	wg.Wait()
	total := time.Since(start).Seconds()
	sort.Slice(took, func(a, b int) bool { return took[a] < took[b] })
	ms := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
	done := float64(len(took))
	out, _ := json.Marshal(map[string]any{"op": *op, "size": *size, "n": len(took), "c": *c, "failed": failed, "seconds": total,
		"ops_per_s": done / total, "mib_per_s": done * float64(*size) / total / (1 << 20), "p50_ms": ms(.5), "p99_ms": ms(.99)})
	fmt.Println(string(out))
	if failed > 0 {
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
