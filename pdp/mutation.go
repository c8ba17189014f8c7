package pdp

import (
	"context"
	"fmt"
	"runtime"
	"sync"

	"github.com/ward-authz/ward/hierarchy"
	"github.com/ward-authz/ward/policies"
)

// Score says how much of a set's policies its own tests hold in place.
type Score struct {
	// Mutants is how many changes were made, Killed how many of them made at
	// least one test fail.
	Mutants int `json:"mutants"`
	Killed  int `json:"killed"`
	// Refused is how many more changes are no valid policy, and count nowhere.
	Refused int `json:"refused"`
	// Survivors are the changes that no test notices, by policy and place.
	Survivors []policies.Mutant `json:"survivors"`
}

// Percent returns the part of the mutants that was killed, 100 when there is
// nothing to change.
func (s Score) Percent() float64 {
	if s.Mutants == 0 {
		return 100
	}
	return 100 * float64(s.Killed) / float64(s.Mutants)
}

// Mutate makes every change that [policies.Set.Mutants] lists, one at a time,
// and runs the set's own tests on each. The result depends on the set alone. The
// error is that of ctx, about a test file that is no test at all, or that the
// tests fail without any change.
func Mutate(ctx context.Context, set *policies.Set) (Score, error) {
	score := Score{Survivors: []policies.Mutant{}}
	failures, err := RunTests(set)
	if err != nil {
		return score, err
	}
	if len(failures) > 0 {
		return score, fmt.Errorf("the tests fail before anything is changed: %s", failures[0])
	}
	worlds := map[string]*hierarchy.Graph{}
	cases := set.Cases()
	for _, c := range cases {
		if worlds[c.File] == nil {
			if worlds[c.File], err = testGraph(set, c.Facts); err != nil {
				return score, fmt.Errorf("%s: %w", c.File, err)
			}
		}
	}

	const refused, killed, survived = 1, 2, 3
	mutants := set.Mutants()
	results := make([]int, len(mutants))
	next := make(chan int)
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := range next {
				mutated, err := set.Mutate(mutants[i])
				if err != nil {
					results[i] = refused
					continue
				}
				results[i] = survived
				for _, c := range cases {
					if runCase(mutated, worlds[c.File], c) != "" {
						results[i] = killed
						break
					}
				}
			}
		})
	}
	for i := range mutants {
		if err = ctx.Err(); err != nil {
			break
		}
		next <- i
	}
	close(next)
	workers.Wait()
	if err != nil {
		return score, err
	}
	for i, r := range results {
		switch r {
		case refused:
			score.Refused++
			continue
		case killed:
			score.Killed++
		case survived:
			score.Survivors = append(score.Survivors, mutants[i])
		}
		score.Mutants++
	}
	return score, nil
}
