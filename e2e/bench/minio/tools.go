//go:build tools

// Package tools names what is built here: the store that the benchmark compares with.
package tools

import _ "github.com/minio/minio"
