                let worth = worths[token];
                finish(token, output, sum0 * worth, sum1 * worth);
