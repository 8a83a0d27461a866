// Evaluates PromQL over series that are given, with Prometheus' own engine.
//
// Reads JSON from standard input and writes JSON to standard output:
//
//	[{"query": "up == 0", "series": ["up{job=\"a\"} 0x10"], "interval": 60, "at": 600}, ...]
//	[[{"labels": {"__name__": "up", "job": "a"}, "value": 0}], ...]
//
// Series are written as in the unit tests of Prometheus' rules, `interval` seconds from one value to the next; `at` is
// in seconds, too. Ends with 1 and a message where something is malformed.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

type question struct {
	Query    string   `json:"query"`
	Series   []string `json:"series"`
	Interval int64    `json:"interval"`
	At       int64    `json:"at"`
}

type found struct {
	Labels map[string]string `json:"labels"`
	Value  float64           `json:"value"`
}

func main() {
	if err := answer(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func answer() error {
	var questions []question
	if err := json.NewDecoder(os.Stdin).Decode(&questions); err != nil {
		return err
	}
	language := parser.NewParser(parser.Options{})
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: time.Minute, Parser: language})
	answers := make([][]found, 0, len(questions))
	for _, asked := range questions {
		series, err := read(language, asked)
		if err != nil {
			return err
		}
		vector, err := evaluate(engine, asked, series)
		if err != nil {
			return fmt.Errorf("%s: %w", asked.Query, err)
		}
		answers = append(answers, vector)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func evaluate(engine *promql.Engine, asked question, series []storage.Series) ([]found, error) {
	query, err := engine.NewInstantQuery(context.Background(), holding(series), nil, asked.Query, time.Unix(asked.At, 0))
	if err != nil {
		return nil, err
	}
	defer query.Close()
	result := query.Exec(context.Background())
	vector, err := result.Vector()
	if err != nil {
		return nil, err
	}
	told := make([]found, 0, len(vector))
	for _, sample := range vector {
		told = append(told, found{sample.Metric.Map(), sample.F})
	}
	return told, nil
}

func read(language parser.Parser, asked question) ([]storage.Series, error) {
	all := make([]storage.Series, 0, len(asked.Series))
	for _, text := range asked.Series {
		name, values, err := language.ParseSeriesDesc(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		var samples []chunks.Sample
		for at, value := range values {
			if !value.Omitted {
				samples = append(samples, sample{int64(at) * asked.Interval * 1000, value.Value})
			}
		}
		all = append(all, storage.NewListSeries(name, samples))
	}
	return all, nil
}

// holding is a store of these series and nothing else.
func holding(series []storage.Series) storage.Queryable {
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			found := &seriesSet{at: -1}
			for _, one := range series {
				if matches(one.Labels(), matchers) {
					found.series = append(found.series, one)
				}
			}
			return found
		},
	}}
}

func matches(name labels.Labels, matchers []*labels.Matcher) bool {
	for _, matcher := range matchers {
		if !matcher.Matches(name.Get(matcher.Name)) {
			return false
		}
	}
	return true
}

// seriesSet goes through series once.
type seriesSet struct {
	series []storage.Series
	at     int
}

func (s *seriesSet) Next() bool                        { s.at++; return s.at < len(s.series) }
func (s *seriesSet) At() storage.Series                { return s.series[s.at] }
func (s *seriesSet) Err() error                        { return nil }
func (s *seriesSet) Warnings() annotations.Annotations { return nil }

// sample is a plain number at a time, in milliseconds.
type sample struct {
	at    int64
	value float64
}

func (s sample) ST() int64                     { return 0 }
func (s sample) T() int64                      { return s.at }
func (s sample) F() float64                    { return s.value }
func (s sample) H() *histogram.Histogram       { return nil }
func (s sample) FH() *histogram.FloatHistogram { return nil }
func (s sample) Type() chunkenc.ValueType      { return chunkenc.ValFloat }
func (s sample) Copy() chunks.Sample           { return s }
