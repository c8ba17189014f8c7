package policies

// scan reads Cedar text (policies, or with schema a schema) with a lexer that
// knows strings, comments and brackets and nothing else, in one pass without
// recursion. It refuses what would exhaust a recursive parser, and returns the
// offset just after each semicolon outside brackets: where a policy ends.
//
// It stops at the first finding, so that hostile text costs no more than the
// part that was read.
func scan(file string, src []byte, schema bool, diags *Diagnostics) (ends []int, ok bool) {
	type level struct {
		open   byte
		ifs    int
		commas int
	}
	var (
		stack        [MaxNesting + 1]level // stack[depth] is the current level
		depth        int
		ifs          int // pending ifs of all levels
		tokens       int // of the current policy
		line, lineAt = 1, 0
	)
	column := func(i int) int { // in characters
		n := 1
		for _, c := range src[lineAt:i] {
			if c&0xc0 != 0x80 {
				n++
			}
		}
		return n
	}
	fail := func(i int, code, format string, args ...any) ([]int, bool) {
		diags.add(file, line, column(i), code, format, args...)
		return nil, false
	}
	leave := func() {
		ifs -= stack[depth].ifs
		stack[depth].ifs = 0
	}
	for i := 0; i < len(src); {
		c := src[i]
		switch {
		case c == '\n':
			i++
			line, lineAt = line+1, i
			continue
		case c == ' ' || c == '\t' || c == '\r':
			i++
			continue
		case c == '/' && i+1 < len(src) && src[i+1] == '/':
			for i < len(src) && src[i] != '\n' {
				if bidiAt(src, i) {
					return fail(i, CodeBidiControl, "a character that changes the reading direction")
				}
				i++
			}
			continue
		}
		if tokens++; tokens > MaxPolicyTokens && !schema {
			return fail(i, CodePolicyTooLarge, "a policy has at most %d tokens", MaxPolicyTokens)
		}
		switch {
		case c == '"':
			start, startLine, startLineAt := i, line, lineAt
			for i++; i < len(src) && src[i] != '"'; i++ {
				switch {
				case src[i] == '\\':
					i++
				case src[i] == '\n':
					line, lineAt = line+1, i+1
				case bidiAt(src, i):
					return fail(i, CodeBidiControl, "a character that changes the reading direction; write it as \\u{…}")
				}
			}
			if i >= len(src) {
				line, lineAt = startLine, startLineAt
				return fail(start, CodePolicyInvalid, "a string that does not end")
			}
			i++
		case c == '(' || c == '[' || c == '{' || schema && c == '<':
			if depth+1+ifs > MaxNesting {
				return fail(i, CodeNestingTooDeep, "brackets and ifs nest deeper than %d", MaxNesting)
			}
			depth++
			stack[depth] = level{open: c}
			i++
		case c == ')' || c == ']' || c == '}' || schema && c == '>':
			if depth > 0 {
				leave()
				depth--
			}
			i++
		case c == ',':
			leave()
			if stack[depth].commas++; stack[depth].open == '[' && stack[depth].commas >= MaxSetLiteral {
				return fail(i, CodeSetTooLarge, "a set has at most %d elements", MaxSetLiteral)
			}
			i++
		case c == ';':
			leave()
			i++
			if depth == 0 {
				ends = append(ends, i)
				tokens = 0
			}
		case isWord(c):
			start := i
			for i < len(src) && isWord(src[i]) {
				i++
			}
			if string(src[start:i]) == "if" {
				if depth+1+ifs > MaxNesting {
					return fail(start, CodeNestingTooDeep, "brackets and ifs nest deeper than %d", MaxNesting)
				}
				stack[depth].ifs++
				ifs++
			}
		default:
			if bidiAt(src, i) {
				return fail(i, CodeBidiControl, "a character that changes the reading direction")
			}
			i++
		}
	}
	return ends, true
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// bidiAt reports whether a bidirectional control character (U+202A to U+202E,
// U+2066 to U+2069) starts at src[i].
func bidiAt(src []byte, i int) bool {
	if src[i] != 0xe2 || i+2 >= len(src) {
		return false
	}
	return src[i+1] == 0x80 && src[i+2] >= 0xaa && src[i+2] <= 0xae ||
		src[i+1] == 0x81 && src[i+2] >= 0xa6 && src[i+2] <= 0xa9
}
